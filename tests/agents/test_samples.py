"""Sample texts are what was said, whole lines of JSON, and a resumed run's file has no gap and nothing twice."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, make_output_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import GRPO, PPO, Checkpoint, SampleTexts, resume
from agents.runs import checkpoints
from agents.vec_env import VectorEnvAdapter

SMALL: dict[str, Any] = {"n_steps": 12, "seed": 0, "device": "cpu"}


class Letters:
    """A tokenizer: token 0 is ".", 1 is "a" and so on."""

    def decode(self, ids: list[int]) -> str:
        return "".join(".abcdef"[i] for i in ids)


class Spelling(VectorEnvAdapter):
    """Knows a tokenizer, and keeps the observations before each step."""

    tokenizer = Letters()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [self.tokenizer] if attr_name == "tokenizer" else super().get_attr(attr_name, indices)


class Said(BaseCallback):
    """Writes down every episode by itself: which tokens were there first, and which actions followed."""

    def _on_training_start(self) -> None:
        self.episodes: list[tuple[str, str]] = []
        self.first = [self._text(row) for row in self.model._last_obs]
        self.actions: list[list[int]] = [[] for _ in self.first]

    def _on_rollout_start(self) -> None:
        if self.model._last_episode_starts.all():  # as at the beginning, and where groups begin afresh
            self.first = [self._text(row) for row in self.model._last_obs]
            self.actions = [[] for _ in self.first]

    def _text(self, observation: np.ndarray) -> str:
        return Letters().decode(observation[observation != 7].tolist())

    def _on_step(self) -> bool:
        for row, action in enumerate(self.locals["actions"].tolist()):
            self.actions[row].append(action)
            if self.locals["dones"][row]:
                self.episodes.append((self.first[row], Letters().decode(self.actions[row])))
                self.first[row], self.actions[row] = self._text(self.locals["new_obs"][row]), []
        return True


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_samples_are_what_was_said(vector_env: Callable, tmp_path: Path) -> None:
    path, said = tmp_path / "deep" / "samples.jsonl", Said()
    model = PPO("TransformerPolicy", Spelling(vector_env(4)), **SMALL)
    model.learn(480, callback=[said, SampleTexts(path, every=100, count=3)])
    found = lines(path)
    assert len(found) == 15  # three each at 100, 200, 300 and 400, and the last ones at the end
    for sample in found:
        assert (sample["prompt"], sample["completion"]) in said.episodes
        chain = sample["prompt"][-1] + sample["completion"]
        right = sum(then == "abcdef"[("abcdef".index(now) + 1) % 6] for now, then in pairwise(chain) if now != ".")
        assert sample["reward"] == right and sample["terms"] == {}
    assert (found[-1]["prompt"], found[-1]["completion"]) == said.episodes[-1]


def test_samples_are_what_was_said_where_groups_begin_afresh(vector_env: Callable, tmp_path: Path) -> None:
    said, fresh = Said(), []
    model = GRPO("TransformerPolicy", Spelling(vector_env(8)), group_size=4, **SMALL)
    begin = model._begin_afresh
    model._begin_afresh = lambda: (fresh.append(model.num_timesteps), begin())
    model.learn(12 * 8 * 40, callback=[said, SampleTexts(tmp_path / "samples.jsonl", every=8, count=8)])
    found = {(sample["prompt"], sample["completion"]) for sample in lines(tmp_path / "samples.jsonl")}
    assert fresh and found == set(said.episodes)


def test_tensorboard_shows_them(vector_env: Callable, tmp_path: Path) -> None:
    model = PPO("TransformerPolicy", Spelling(vector_env(4)), **SMALL)
    formats = [make_output_format(kind, str(tmp_path)) for kind in ("tensorboard", "csv", "json", "log")]
    model.set_logger(Logger(str(tmp_path), formats))
    model.learn(240, callback=SampleTexts(every=100, count=2))
    model.logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    shown = events.Tensors("samples/1/text_summary")
    text = shown[0].tensor_proto.string_val[0].decode()
    assert text.startswith("return ") and "\n\ncompletion\n\n    " in text
    for other in ("progress.csv", "progress.json", "log.txt"):
        assert "samples" not in (tmp_path / other).read_text()


class Told(Spelling):
    """A text task's infos."""

    def step_wait(self) -> Any:
        observations, rewards, ended, infos = super().step_wait()
        for row in np.flatnonzero(ended):
            terms = {"style": 0.5, "rare": np.nan}
            infos[row] |= {"prompt": "say\n*this*", "completion": "ça\u2028va \udc80", "reward_terms": terms}
        return observations, rewards, ended, infos


def test_texts_of_the_task_come_first_whatever_is_in_them(vector_env: Callable, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    model = PPO("TransformerPolicy", Told(vector_env(4)), **SMALL)
    model.learn(192, callback=[Checkpoint(tmp_path / "run", every=48), SampleTexts(path, every=48, count=1)])
    with open(path, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    assert found[0]["prompt"] == "say\n*this*" and found[0]["completion"] == "ça\u2028va \udc80"
    assert found[0]["terms"] == {"style": 0.5}


def test_a_resumed_run_goes_on_with_its_file(vector_env: Callable, tmp_path: Path) -> None:
    path, folder = tmp_path / "samples.jsonl", tmp_path / "run"

    def callbacks() -> list[BaseCallback]:
        return [Checkpoint(folder, every=96, keep=9), SampleTexts(path, every=48, count=2)]

    PPO("TransformerPolicy", Told(vector_env(4)), **SMALL).learn(288, callback=callbacks())
    whole = path.read_bytes()
    for later in checkpoints(folder)[2:]:
        later.unlink()
    path.write_bytes(whole[: len(whole) - 20])  # as a kill in the middle of a character and a line leaves it
    model = resume(folder, device="cpu")
    assert model.num_timesteps == 96
    model.learn(288 - 96, callback=callbacks(), reset_num_timesteps=False)
    assert path.read_bytes() == whole


def test_files_of_others_are_left_alone(vector_env: Callable, tmp_path: Path) -> None:
    model = PPO("TransformerPolicy", Spelling(vector_env(4)), **SMALL)
    model.learn(48, callback=SampleTexts(tmp_path / "samples.jsonl"))
    (tmp_path / "notes.txt").write_text("mine\n")
    with pytest.raises(ValueError, match="line 1 of .*notes.txt is no sample: 'mine"):
        model.learn(48, callback=SampleTexts(tmp_path / "notes.txt"), reset_num_timesteps=False)
    assert (tmp_path / "notes.txt").read_text() == "mine\n"
    with pytest.raises(ValueError, match="holds the samples of another run"):
        model.learn(48, callback=SampleTexts(tmp_path / "samples.jsonl"))


def test_an_environment_without_texts_is_refused(vector_env: Callable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tells no texts"):
        PPO("TransformerPolicy", vector_env(4), **SMALL).learn(480, callback=SampleTexts(tmp_path / "s.jsonl"))
    with pytest.raises(ValueError, match="ending, such as samples.jsonl"):
        SampleTexts(tmp_path / "samples")
    with pytest.raises(ValueError, match="count=0; give at least 1"):
        SampleTexts(count=0)
