"""Does the gate catch what it should? Regressions and harmless changes planted in a healthy project, really run, really judged."""
