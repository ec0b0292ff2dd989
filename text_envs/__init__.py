"""Text generation as Gymnasium environments. Importing this package registers its ids with Gymnasium."""

from .candidates import CandidateActions, CandidateLayout, CandidateVectorActions
from .datasets import Prompts, load_prompts
from .proposers import FixedCandidates
from .registration import register_all, register_task, task_ids
from .spaces import UnicodeText
from .tasks.base import Replies, Samples, Score, Task, Utterances
from .tasks.text import TextTask
from .token_env import TokenEnv
from .tokenizer import ByteTokenizer, CharacterTokenizer, Tokenizer, WordTokenizer
from .utterance_env import UtteranceEnv
from .vector_env import TokenVectorEnv, UtteranceVectorEnv

__all__ = [
    "ByteTokenizer",
    "CandidateActions",
    "CandidateLayout",
    "CandidateVectorActions",
    "CharacterTokenizer",
    "FixedCandidates",
    "Prompts",
    "Replies",
    "Samples",
    "Score",
    "Task",
    "TextTask",
    "TokenEnv",
    "TokenVectorEnv",
    "Tokenizer",
    "UnicodeText",
    "UtteranceEnv",
    "UtteranceVectorEnv",
    "Utterances",
    "WordTokenizer",
    "load_prompts",
    "register_task",
    "task_ids",
]

register_all()
