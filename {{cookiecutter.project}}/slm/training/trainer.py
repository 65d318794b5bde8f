"""Training by the Transformers Trainer: head on answer positions only, resumable, curves in TensorBoard."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments

from slm.config.params import Params, Training
from slm.errors import UserError
from slm.modeling.checkpoints import device_of
from slm.modeling.encoding import IGNORE, collate
from slm.modeling.loss import answer_loss
from slm.modeling.memory import fit
from slm.modeling.qat import round_in_training
from slm.training.distributed import check_sharding, filled, hollow, processes, sharding
from slm.training.early_stopping import EarlyStopping
from slm.training.resume import checkpoint_folder, last_checkpoint


class Examples(Dataset[dict[str, Any]]):
    def __init__(self, examples: list[dict[str, Any]]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.examples[index]


class AnswerTrainer(Trainer):
    """A batch's loss is the mean over its answer tokens, however many processes and parts compute it."""

    sampler: Any = None
    kl_weight = 0.0
    score: Callable[[Any], float] | None = None
    loss_is_scaled_for_ga = True

    def _get_train_sampler(self, *_: Any) -> Any:
        return self.sampler

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """The parts of a batch, and its answer tokens, those of all processes. (The library's own count
        leaves out the first column.)
        """
        parts, _ = super().get_batch_samples(*arguments)
        own = sum((part["labels"] != IGNORE).sum() for part in parts)
        return parts, self.accelerator.reduce(torch.as_tensor(own, device=self.args.device), "sum")

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        keep = inputs["labels"].shape[1] + 1
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=keep,
            use_cache=False,
        )
        loss = answer_loss(outputs.logits[:, :-1], inputs, self.kl_weight)
        own = (inputs["labels"] != IGNORE).sum()
        if num_items_in_batch is not None:  # gradients are summed over parts, and averaged over processes
            share = own / num_items_in_batch * self.accelerator.num_processes
            loss = loss * share if own else outputs.logits.sum() * 0
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The score of the answers, in place of the loss: one process asks, and all stop together."""
        assert self.score is not None
        found = [self.score(self.model) if self.is_world_process_zero() else None]
        metrics = {"eval_score": broadcast_object_list(found)[0]}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # each process has written its part: the state, which says so, comes after this
        self.accelerator.wait_for_everyone()


class _StopOnNaN(TrainerCallback):
    """Stop at once when the loss is not a number, so that no broken model is saved."""

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        for name in ("loss", "grad_norm"):
            if logs and not math.isfinite(float(logs.get(name, 0.0))):
                raise UserError(
                    f"the {name} is {logs[name]} at step {state.global_step}: training has diverged; "
                    "lower learning_rate of this stage in params.yaml (a tenth is a good start)"
                )


class _Sampler(torch.utils.data.Sampler[int]):
    """Batches of like length in random order: no step pads one long example with fifteen short ones.

    fill: the index that makes a last batch full, so that many processes can divide it; None: it stays as it
    is.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, fill: int | None = None) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0
        self.rest = [] if fill is None else [fill] * (-len(lengths) % batch_size)

    def __len__(self) -> int:
        return len(self.lengths) + len(self.rest)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + 1000 * self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        window = 16 * self.batch_size
        batches = []
        for start in range(0, len(order), window):
            chunk = sorted(order[start : start + window], key=lambda i: self.lengths[i])
            batches += [chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)]
        # A last batch that is not full stays last, so that the others keep their bounds.
        full = len(batches) - (len(batches[-1]) < self.batch_size)
        for index in [*torch.randperm(full, generator=generator).tolist(), *range(full, len(batches))]:
            yield from batches[index]
        yield from self.rest


class _SetEpoch(TrainerCallback):
    """The library's own call does not reach the sampler where many processes resume in the middle of an
    epoch.
    """

    def __init__(self, sampler: _Sampler) -> None:
        self.sampler, self.steps = sampler, math.ceil(len(sampler) / sampler.batch_size)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.set_epoch(state.global_step // self.steps)


@dataclass(frozen=True)
class TrainingRun:
    """One training, but for its model and its examples.

    key: names the checkpoints that it may go on from, see `slm.training.resume`.
    kl_weight: weight of the teacher's distribution, where examples have it; the rest is cross-entropy.
    score: the model's score on validation data, see `slm.training.early_stopping`; asked only with
        `settings.patience`.
    """

    stage: str
    key: str
    settings: Training
    params: Params
    kl_weight: float = 0.0
    score: Callable[[Any], float] | None = None


@dataclass(frozen=True)
class Trained:
    """model: the one that was given, but where each process held a part of it.
    facts: steps, tokens, final loss; with patience also validation_score, and the step from which the weights
    are.
    curve: of the training, [{"step", "loss", ...}].
    """

    model: Any
    facts: dict[str, Any]
    curve: list[dict[str, float]]


def train(
    run: TrainingRun,
    model: PreTrainedModel | Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict[str, Any]],
) -> Trained:
    """Train `model`. Killed and started again with the same key, it goes on from the last checkpoint.

    examples: dicts of prompt_ids, answer_ids and perhaps the teacher's distribution.
    """
    if run.settings.batch_size % processes():
        raise UserError(
            f"params.yaml: {run.stage}.batch_size is {run.settings.batch_size}, which {processes()} "
            "processes cannot divide; change one of them"
        )
    check_sharding(run.stage, run.settings, run.params.compute.precision, model)
    if run.settings.rounding:
        round_in_training(model, run.settings.rounding)
    folder = checkpoint_folder(run.stage, run.key)
    trainer = _trainer(run, model, tokenizer, examples, folder)
    if sharding() not in (None, trainer.accelerator.distributed_type.value):
        raise UserError(
            f"{run.stage}: {sharding()} divides weights among GPUs, and this training has no GPU; remove it "
            "from the file that compute.accelerate names"
        )
    whole = hollow(model) if sharding() else model
    last = broadcast_object_list([last_checkpoint(folder)])[0]  # all of them from the same
    if last:
        print(f"{run.stage}: resuming from {last}")
    result = trainer.train(resume_from_checkpoint=last)
    return _trained(run, trainer, _gathered(trainer, whole), examples, result.training_loss)


def _trainer(
    run: TrainingRun,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[dict[str, Any]],
    folder: Path,
) -> AnswerTrainer:
    rows, twice = _rows_at_once(run, model, tokenizer, examples)
    fill = len(examples) if processes() > 1 else None
    sampler = _Sampler(_lengths(examples), run.settings.batch_size, run.params.seed, fill)
    callbacks: list[TrainerCallback] = [_StopOnNaN(), _SetEpoch(sampler)]
    if run.settings.patience:
        callbacks.append(EarlyStopping(run.settings.patience))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path("logs") / run.stage)
    trainer = AnswerTrainer(
        model=model,
        args=_arguments(run, folder, rows, twice),
        # the last: what fills a batch
        train_dataset=Examples([*examples, {"prompt_ids": [tokenizer.pad_token_id], "answer_ids": []}]),
        data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
        # the library insists on one; `score` has its own
        eval_dataset=Examples([]) if run.settings.patience else None,
        callbacks=callbacks,
    )
    trainer.sampler, trainer.kl_weight, trainer.score = sampler, run.kl_weight, run.score
    return trainer


def _lengths(examples: list[dict[str, Any]]) -> list[int]:
    return [len(e["prompt_ids"]) + len(e["answer_ids"]) for e in examples]


def _rows_at_once(
    run: TrainingRun, model: Any, tokenizer: PreTrainedTokenizerBase, examples: list[dict[str, Any]]
) -> tuple[int, bool]:
    """Examples that one process holds at once, and whether activations are computed twice for that."""
    batch_size = run.settings.batch_size
    if processes() > 1:
        return batch_size // processes(), False
    rows, twice = fit(run.stage, model, examples, tokenizer.pad_token_id, batch_size)
    if rows < batch_size or twice:
        print(
            f"{run.stage}: memory is short: {rows} of {batch_size} examples at "
            f"once{', activations computed twice' if twice else ''}"
        )
    return rows, twice


def _arguments(run: TrainingRun, folder: Path, rows: int, twice: bool) -> TrainingArguments:
    settings, params = run.settings, run.params
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=settings.batch_size // processes() // rows,
        activation_checkpointing=twice,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_share,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=params.compute.precision == "bfloat16",
        seed=params.seed,
        # An interval that ends with each checkpoint, so that a resumed run draws the same curve.
        logging_steps=math.gcd(5, settings.save_steps),
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        save_total_limit=2 if settings.patience else 1,  # the best and the last
        report_to=["tensorboard"],
        remove_unused_columns=False,
        use_cpu=device_of(params) == "cpu",
        ddp_find_unused_parameters=False,
        **(_scored_at_checkpoints(settings) if settings.patience else {}),
    )
    # One process, one GPU: with several the library would take a batch for each, unasked. compute.processes
    # is for that.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _scored_at_checkpoints(settings: Training) -> dict[str, Any]:
    """Options that score the model whenever a checkpoint is written, and at the end, and keep the best."""
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.save_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": "score",
        "greater_is_better": True,
        "restore_callback_states_from_checkpoint": True,
    }


def _gathered(trainer: AnswerTrainer, whole: Any) -> Any:
    """The trained model in the process that writes, out of the parts that all of them hold; the others end
    here.

    whole: the model itself, hollow where its weights are divided.
    """
    parts = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharding() else {}
    if processes() > 1:  # they part together: one that leaves while another talks to it can abort
        trainer.accelerator.wait_for_everyone()
        trainer.accelerator.end_training()
    if not trainer.is_world_process_zero():
        sys.exit()  # its part is done: one process writes
    return filled(whole, parts) if parts else whole


def _trained(
    run: TrainingRun, trainer: AnswerTrainer, model: Any, examples: list[dict[str, Any]], mean_loss: float
) -> Trained:
    # Resumed at its very end, a run takes one step more than it has, at a learning rate of zero.
    log, steps = trainer.state.log_history, min(trainer.state.global_step, trainer.state.max_steps)
    chosen: dict[str, float] = {}
    if run.settings.patience:
        scored = [row for row in log if "eval_score" in row]
        best = max(scored, key=lambda row: row["eval_score"])
        steps = scored[-1]["step"]
        chosen = {"validation_score": best["eval_score"], "best_step": best["step"]}
    # Keys in one order: a resumed run reads the older rows back from its checkpoint, sorted.
    figures = ("step", "epoch", "loss", "grad_norm", "learning_rate")
    curve = [{name: row[name] for name in figures} for row in log if "loss" in row and row["step"] <= steps]
    share = steps / trainer.state.max_steps
    facts = {
        "examples": len(examples),
        "steps": steps,
        "tokens": int(share * run.settings.epochs * sum(_lengths(examples))),
        "loss": curve[-1]["loss"] if curve else mean_loss,
    }
    return Trained(model, facts | chosen, curve)
