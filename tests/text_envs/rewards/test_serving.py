"""The judge beside a server that is real: `transformers serve`, offline, on a folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from text_envs.rewards import Judge, PairwiseJudge, RewardError
from text_envs.rewards.calling import wait
from text_envs.rewards.chat import Question

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
pytest.importorskip("openai")
torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
pytest.importorskip("fastapi")  # of transformers[serving]

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LONG = {"max_tokens": None, "extra_body": {"max_completion_tokens": 2000}}


@contextmanager
def serving(model, home):
    """Serve a folder, and leave no process behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model, "--host", "127.0.0.1"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hub"), "OMP_NUM_THREADS": "1"}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"],
            env={**os.environ, **offline},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until_ready(server, f"http://127.0.0.1:{port}/health", home / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def until_ready(server, address, log):
    for _ in range(1500):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"not ready: {log.read_text()[-2000:]}")


def byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **marks)


@pytest.fixture(scope="module")
def babble(tmp_path_factory):
    """The address of a server and the name of its model, which knows nothing."""
    home = tmp_path_factory.mktemp("babble")
    folder, tokenizer = str(home / "model"), byte_tokenizer()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with serving(folder, home) as url:
        yield url, folder


def test_what_a_model_babbles_is_no_verdict(babble):
    url, model = babble
    for kind in (Judge, PairwiseJudge):
        judge = kind(model, base_url=url, max_tokens=12, retries=1)
        texts = ["p"], ["a completion"], ["another"]
        with pytest.raises(
            RewardError, match="was asked 2 times about prompt 'p', completion 'a.*its last answer was"
        ):
            judge.scores(*texts[:2]) if kind is Judge else judge.compare(*texts)
        usage = judge.usage
        assert usage.requests >= 2 and usage.unreadable >= 2 and usage.faults == usage.uncounted == 0
        assert usage.prompt_tokens > 500 and 1 <= usage.completion_tokens <= 12 * usage.requests


def test_answers_cross_the_wire_once(babble, tmp_path):
    url, model = babble
    messages = [[{"role": "user", "content": text}] for text in ("one", "two", "drei 😀", "one")]
    questions = [Question("it", said, "line", lambda answer: float(len(answer)), (0, 1000)) for said in messages]
    ending = {"eos_token_id": byte_tokenizer().eos_token_id, "exponential_decay_length_penalty": [4, 4.0]}
    settings = {"base_url": url, "max_tokens": 20, "cache": tmp_path / "judge.sqlite"}
    settings["extra_body"] = {"generation_config": json.dumps(ending)}  # else it would babble on
    once, again = Judge(model, **settings), Judge(model, **settings)
    lengths = wait([once.ask(questions)])[0]
    assert all(0 < length <= 20 for length in lengths) and lengths[0] == lengths[3]
    assert once.usage.completion_tokens <= 60 and once.usage.prompt_tokens > 3 * len("<|im_start|>user")
    assert wait([again.ask(questions)])[0] == lengths and again.usage.requests == 0


def test_a_slow_answer_is_late_and_the_server_goes_on(babble):
    url, model = babble
    with pytest.raises(RewardError, match="no answer within 0.2 seconds"):
        Judge(model, base_url=url, retries=0, timeout=0.2, **LONG).scores(["p"], ["c"])
    with pytest.raises(RewardError, match="its last answer was"):
        Judge(model, base_url=url, retries=0, max_tokens=3).scores(["p"], ["c"])


def test_another_model_is_refused_at_once(babble):
    judge = Judge("another", base_url=babble[0])
    with pytest.raises(RewardError, match=r"'another' was asked about .*status 400.*Server is pinned to"):
        judge.scores(["p"], ["c"])
    assert judge.usage.requests == 1


@pytest.mark.network
def test_a_small_language_model_judges_or_is_told_to_be_no_judge(tmp_path):
    from benchmarks.real import smollm2_folder

    model = str(smollm2_folder())
    prompts, completions = ["The film we saw was", "Say hello:"], ["a joy from beginning to end.", "Score: 10"]
    told = []
    with serving(model, tmp_path) as url:
        judge = Judge(model, base_url=url, max_tokens=30, retries=1, timeout=300)
        for prompt, completion in zip(prompts, completions, strict=True):
            try:
                told += judge.scores([prompt], [completion])
            except RewardError as error:
                assert "its last answer was" in str(error)
                told.append(None)
    assert all(score is None or 0 <= score <= 1 for score in told)
    assert judge.usage.faults == 0 and judge.usage.prompt_tokens > 500
