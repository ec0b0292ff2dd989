"""What an agent says while it learns: sample texts for TensorBoard and a file, and what infos tell of a text."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from .algorithm import attribute
from .buffers import context_length
from .checkpoint import write_text
from .on_policy import check_sizes
from .policies import token_sizes

_ONLY_TENSORBOARD = ("stdout", "log", "json", "csv")


class Ended(NamedTuple):
    """An episode that ended.

    Attributes:
        step: environment steps of training by then.
        info: its last info.
        prompt_length: tokens that it began with, None where that is not known.
    """

    step: int
    info: dict[str, Any]
    prompt_length: int | None


class SampleTexts(BaseCallback):
    """Writes the episodes that ended last: as text to TensorBoard, through SB3's logger, and to a file.

    Texts are the task's own (`prompt` and `completion` in the infos), else the decoded tokens; of an episode that
    was running when training went on, the prompt's end is not known, and it is left out.

    Args:
        path: a file for one JSON object a line: step, prompt, completion, reward (the return) and terms. A run
            that is resumed goes on with it, without the lines from after its checkpoint. None: TensorBoard alone.
        every: environment steps between samples.
        count: episodes each time.

    Raises:
        ValueError: if the file holds another run's samples, or no samples; if the environment tells neither texts
            nor a tokenizer.
    """

    def __init__(self, path: str | Path | None = None, every: int = 10_000, count: int = 4) -> None:
        super().__init__()
        check_sizes(every=every, count=count)
        self.path, self.every, self.count = None if path is None else Path(path), every, count
        if self.path is not None and not self.path.suffix:
            raise ValueError(f"path={str(path)!r}; give a file's path with an ending, such as samples.jsonl")

    def _on_training_start(self) -> None:
        self._decode = _decoder(self.training_env)
        self._latest: deque[Ended] = deque(maxlen=self.count)
        self._due = self.num_timesteps - self.num_timesteps % self.every + self.every
        self._prompt_lengths: list[int | None] = [None] * self.training_env.num_envs
        if self.num_timesteps == 0:  # every row has just been reset
            self._prompt_lengths[:] = self._lengths(self.model._last_obs) or self._prompt_lengths
        if self.path is not None:
            _continue_samples(self.path, self.num_timesteps)

    def _on_rollout_start(self) -> None:
        if getattr(self.model, "rollout_buffer", None) is not None and np.all(self.model._last_episode_starts):
            self._prompt_lengths[:] = (
                self._lengths(self.model._last_obs) or self._prompt_lengths
            )  # GRPO resets rows

    def _on_step(self) -> bool:
        ended = np.flatnonzero(self.locals["dones"])
        if len(ended):
            lengths = self._lengths(self.locals["new_obs"][ended])
            for i, row in enumerate(ended.tolist()):
                info = self.locals["infos"][row]
                if self._prompt_lengths[row] is not None or _tells_texts(info):
                    self._latest.append(Ended(self.num_timesteps, info, self._prompt_lengths[row]))
                elif self._decode is None:
                    raise ValueError(
                        "the environment tells no texts: neither 'prompt' and 'completion' in the infos nor, with "
                        "observations of tokens, a 'tokenizer'; leave SampleTexts out"
                    )
                self._prompt_lengths[row] = None if lengths is None else lengths[i]
        if self.num_timesteps >= self._due and self._latest:
            self._write()
        return True

    def _on_training_end(self) -> None:
        if self._latest:
            self._write()
            self.logger.dump(self.num_timesteps)

    def _write(self) -> None:
        self._due = self.num_timesteps - self.num_timesteps % self.every + self.every
        samples = [self._sample(ended) for ended in self._latest]
        self._latest.clear()
        for number, sample in enumerate(samples):
            self.logger.record(f"samples/{number}", _markdown(sample), exclude=_ONLY_TENSORBOARD)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)

    def _sample(self, ended: Ended) -> dict[str, Any]:
        info = ended.info
        if _tells_texts(info):
            prompt, completion = str(info["prompt"]), str(info["completion"])
        else:
            assert self._decode is not None and ended.prompt_length is not None
            ids = info["terminal_observation"]
            ids = ids[: self._lengths(ids[None])[0]]  # type: ignore[index]  # there is a decoder
            prompt = self._decode(ids[: ended.prompt_length].tolist())
            completion = self._decode(ids[ended.prompt_length :].tolist())
        return {
            "step": ended.step,
            "prompt": prompt,
            "completion": completion,
            "reward": float(info["episode"]["r"]),
            "terms": reward_terms(info),
        }

    def _lengths(self, observations: Any) -> list[int] | None:
        """Return the tokens in each observation (n, L), None where observations are no tokens."""
        if self._decode is None:
            return None
        return context_length(observations, int(self.training_env.action_space.n)).tolist()  # type: ignore[attr-defined]


def says_tokens(env: VecEnv) -> bool:
    """Return whether observations are contexts of token ids and an action is a token."""
    try:
        token_sizes(env.observation_space, env.action_space)
    except ValueError:
        return False
    return True


def _decoder(env: VecEnv) -> Callable[[list[int]], str] | None:
    """Return what turns token ids into text, None if the environment offers nothing."""
    return getattr(attribute(env, "tokenizer"), "decode", None) if says_tokens(env) else None


def _tells_texts(info: dict[str, Any]) -> bool:
    return "prompt" in info and "completion" in info


def reward_terms(info: dict[str, Any]) -> dict[str, float]:
    """Return the reward's terms that apply."""
    terms = {name: float(value) for name, value in info.get("reward_terms", {}).items() if value is not None}
    return {name: value for name, value in terms.items() if not math.isnan(value)}


def _markdown(sample: dict[str, Any]) -> str:
    """Return a sample as TensorBoard shows it: texts are indented, so that nothing in them is markup."""
    parts = [f"return {sample['reward']:.3f}", *(f"{name} {value:.3f}" for name, value in sample["terms"].items())]
    texts = ["    " + sample[name].replace("\n", "\n    ") for name in ("prompt", "completion")]
    return "\n\n".join([", ".join(parts), "prompt", texts[0], "completion", texts[1]])


def _continue_samples(path: Path, steps: int) -> None:
    """Make the file of samples ready: what is later than `steps` is said again, half a line was cut by a kill.

    Raises:
        ValueError: if it holds another run's samples, or something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    if path.exists():
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # a character may be cut in two
            lines = file.readlines()
    if lines and steps == 0:
        raise ValueError(f"{path} holds the samples of another run; remove it, or give another file")
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            step = json.loads(line)["step"] if line.endswith("\n") else math.inf
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"line {number} of {path} is no sample: {line[:80]!r}; give another file") from error
        if step <= steps:
            kept.append(line)
    if len(kept) < len(lines):
        write_text(path, "".join(kept))
