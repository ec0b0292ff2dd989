"""TextArena: single-player games of the textarena package as one task; needs the extra `text-envs[suites]`."""

from __future__ import annotations

import re
from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..streams import RowRandom, fold
from ..tasks.base import Replies, Samples, Score, Task, Utterances, pad
from ..tokenizer import ByteTokenizer, as_tokenizer
from .suite import import_suite, isolated, refuse_unknown

GAMES = (
    *(f"2048-v0{n}" for n in ("", "-3x3", "-5x5", "-6x6", "-8x8", "-10x10", "-ultra-easy", "-mega-easy")),
    *(f"2048-v0-{n}" for n in ("super-easy", "very-easy", "easy", "hard", "very-hard", "extreme")),
    *(
        "Bandit-v0",
        "Bandit-v0-hard",
        "Blackjack-v0",
        "Blackjack-v0-long",
        "Crosswords-v0",
        "Crosswords-v0-hardcore",
    ),
    *("FifteenPuzzle-v0", "FrozenLake-v0", "FrozenLake-v0-random", "FrozenLake-v0-hardcore"),
    *("GuessTheNumber-v0", "GuessTheNumber-v0-hardcore", "LightsOut-v0"),
    *("LogicPuzzle-v0", "LogicPuzzle-v0-hard", "Mastermind-v0", "Mastermind-v0-hard", "Mastermind-v0-extreme"),
    *(f"Minesweeper-v0{n}" for n in ("", "-small", "-medium", "-hard")),
    *("PegJump-v0", "RushHour-v0", "Secretary-v0", "Secretary-v0-long", "Set-v0"),
    *("Sokoban-v0", "Sokoban-v0-medium"),
    *(f"Sudoku-v0{n}" for n in ("", "-very-easy", "-easy", "-medium", "-hard")),
    *(f"TowerOfHanoi-v0{n}" for n in ("", "-medium", "-hard", "-hardcore", "-extreme")),
)
_BAD_REWARD = "it pays a sentence, not a number, for an invalid move"
_WORD_LIST = "it downloads a word list when it starts"
_JUDGE = "it asks a language model on a server"
EXCLUDED: dict[str, str] = {
    "Klondike-v0": "its module has a syntax error",
    **dict.fromkeys(("Countdown-v0", "Cryptarithm-v0", "Slitherlink-v0", "ThreeCardMonte-v0"), _BAD_REWARD),
    **dict.fromkeys(("GuessWho-v0", "TwentyQuestions-v0", "TwentyQuestions-v0-hardcore"), _JUDGE),
    **dict.fromkeys(("Hangman-v0", "Hangman-v0-hardcore", "WordSearch-v0", "WordSearch-v0-hardcore"), _WORD_LIST),
    **dict.fromkeys((f"WordLadder-v0{n}" for n in ("", "-medium", "-hard")), _WORD_LIST),
    **dict.fromkeys((f"Wordle-v0{n}" for n in ("", "-hardcore", "-long", "-long-hardcore")), _WORD_LIST),
}
REMEMBERED = 8192  # positions: enough for a batch of 4,000 to go on without replays
_LONG_NUMBER = re.compile(r"(\d{640})\d+")  # Python reads 640 digits under every setting, and may refuse more
_CUE = "\n[Player] "


@dataclass(slots=True)
class Position:
    """What came of the last utterance, or of the beginning.

    Attributes:
        shown: ids of what the game said since.
        over: whether the game has ended.
        reward: what the game paid, 0 before its end.
        reason: the game's words on why it ended.
        turn: utterances so far.
        game: the game itself, which the next utterance takes; None where one took it, or it has ended.
        rows: how many rows came here: all but the last that goes on takes a copy of the game.
    """

    shown: list[int]
    over: bool
    reward: float
    reason: str
    turn: int
    game: Any
    rows: int = 0


class TextArena(Task):
    """Play a single-player game of TextArena; each utterance is a move.

    Shown: the rules and the board, and after each move what the game says to it, as TextArena writes it
    ("[GAME] ..."), then "[Player] " for the next move. Said: moves of up to `max_new_tokens` tokens; the end
    token closes one and counts. Brackets are put around a move that has none;
    of a number of more than 640 digits, the first 640 are read. Earns: the last move earns the
    game's reward, 0 to 1 in most games, less for an invalid move in some (-1 in Bandit, down to -2 in
    LightsOut); the others earn 0, under `dense` too. The episode ends with the game, or when the context has no
    room for what the game says to a move: such a move earns 0, and the game's words are left out. A move that the
    tokenizer cannot say (utterance level only) earns 0 and ends the episode.

    The game's seed is drawn from the row's; the same moves make the same game. Games live in a memory of the
    last positions; a position that is not there (in a copy, or in another process) is found by playing its
    moves again. Slow to begin: Sokoban-medium (1 to 60 s), RushHour (1 s), Sokoban and Sudoku-hard (0.2 s).

    Args:
        game: a name of TextArena's, without "-raw" or "-train".
        tokenizer: ours or one of transformers, with an end token; None: bytes.
        max_new_tokens: T, the budget of a move.
        context_length: L, room for the whole episode.

    Raises:
        ImportError: if textarena is not installed.
        ValueError: if the game is unknown, the tokenizer has no end token, or (when an episode begins) the rules
            do not fit the context.

    Source: Guertler et al. 2025, "TextArena", arXiv:2504.11442.
    """

    family = "other suite"
    turns = None

    def __init__(
        self,
        *,
        game: str = "GuessTheNumber-v0",
        tokenizer: Any = None,
        max_new_tokens: int = 16,
        context_length: int = 8192,
    ) -> None:
        refuse_unknown("game", game, GAMES, EXCLUDED)
        import_suite("textarena", "textarena")
        tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        if as_tokenizer(tokenizer).end_token_id is None:
            raise ValueError(f"a move ends with an end token, and {tokenizer!r} has none; pass ByteTokenizer()")
        super().__init__(
            tokenizer,
            max_prompt_tokens=context_length - max_new_tokens,
            max_new_tokens=max_new_tokens,
            context_length=context_length,
        )
        self.game = game
        self._positions: OrderedDict[tuple[int, bytes], Position] = OrderedDict()

    def sample(self, random: RowRandom) -> Samples:
        """Return the beginnings of new games."""
        seeds = random.integers(1 << 32, 1)[:, 0]
        begun: dict[int, Position] = {}  # rows of one seed share a game until they move
        for seed in seeds.tolist():
            if seed not in begun:
                begun[seed] = self._begin(seed)
            begun[seed].rows += 1
        for seed, position in begun.items():
            if len(position.shown) > self.max_prompt_tokens:
                raise ValueError(
                    f"the rules of {self.game} take {len(position.shown)} tokens, and with {self.max_new_tokens} "
                    f"for a move more than context_length={self.context_length}; raise it"
                )
            self._remember(seed, np.array(position.shown, np.int64), position)
        prompts = [begun[seed].shown for seed in seeds.tolist()]
        return Samples(*pad(prompts, self.vocab_size), {"game_seed": seeds})

    def score(self, said: Utterances) -> Score:
        """Return the game's reward of moves that end it, else 0; `info` says whether and why it ended."""
        last = said.tokens[np.arange(len(said)), said.length - 1]
        full = (said.length - said.start == self.max_new_tokens) | (said.length == self.context_length)
        closed = (last == self.end_token_id) | full
        value = np.zeros(len(said))
        over, reason = np.zeros(len(said), np.bool_), [""] * len(said)
        for i in np.flatnonzero(closed).tolist():
            position = self._after(said, i)
            if self._fits(position, said.length[i]):
                value[i], over[i], reason[i] = position.reward, position.over, position.reason
        return Score(value, {"game_over": over, "game_reason": reason})

    def reply(self, said: Utterances, random: RowRandom) -> Replies:
        """Return what the game says to moves."""
        shown: list[list[int]] = [[] for _ in range(len(said))]
        over = np.ones(len(said), np.bool_)
        for i in np.flatnonzero(said.length > said.start).tolist():
            position, length = self._after(said, i), int(said.length[i])
            if not self._fits(position, length):
                continue
            shown[i], over[i] = position.shown, position.over
            if not position.over:
                position.rows += 1
                context = np.concatenate([said.tokens[i, :length], position.shown])
                self._remember(int(said.columns["game_seed"][i]), context, position)
        return Replies(*pad(shown, self.vocab_size), over)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the games out of copies: they are found again by playing."""
        return {**self.__dict__, "_positions": OrderedDict()}

    def _fits(self, position: Position, length: int) -> bool:
        return len(position.shown) <= self.context_length - length

    def _after(self, said: Utterances, i: int) -> Position:
        """Return the position after the utterance of row i."""
        seed, tokens = int(said.columns["game_seed"][i]), said.tokens[i]
        start, length = int(said.start[i]), int(said.length[i])
        key = seed, tokens[:length].tobytes()
        if key not in self._positions:
            before = self._positions.get((seed, tokens[:start].tobytes()))
            if before is None or before.game is None:
                before = self._replay(seed, tokens, int(said.turn[i]))
            self._remember(seed, tokens[:length], self._move(before, seed, tokens[start:length]))
        self._positions.move_to_end(key)
        return self._positions[key]

    def _replay(self, seed: int, tokens: NDArray[np.int64], turns: int) -> Position:
        """Return the position after the first utterances of a context."""
        position = self._begin(seed)
        at = len(position.shown)
        for _ in range(turns):
            move = tokens[at : at + self.max_new_tokens]
            ends = np.flatnonzero(move == self.end_token_id)
            move = move[: ends[0] + 1] if ends.size else move
            position = self._move(position, seed, move)
            at += len(move) + len(position.shown)
        return position

    def _begin(self, seed: int) -> Position:
        textarena = import_suite("textarena", "textarena")
        with isolated(seed):
            game = textarena.make(f"{self.game}-raw")
            game = textarena.wrappers.ActionFormattingWrapper(game)
            game.reset(num_players=1, seed=seed)
            return self._position(game, 0, False)

    def _move(self, before: Position, seed: int, ids: NDArray[np.int64]) -> Position:
        """Return the position after one more utterance; the last row to go on from `before` takes its game."""
        game = before.game
        if before.rows > 1:
            game, before.rows = deepcopy(game), before.rows - 1
        else:
            before.game = None
        text, turn = _LONG_NUMBER.sub(r"\1", self.codec.decode(ids)), before.turn + 1
        with isolated(int(fold(np.array([seed], np.uint64), turn)[0]), numpy=False):  # that is for Sokoban's rooms
            try:
                over, _ = game.step(text)
            except Exception as error:
                raise ValueError(f"{self.game} raised {error!r} on the move {text!r}") from error
            return self._position(game, turn, over)

    def _position(self, game: Any, turn: int, over: bool) -> Position:
        _, messages = game.get_observation()
        spoken = "\n".join(f"[GAME] {message}" for sender, message, _ in messages if sender < 0)
        shown = ("\n" if turn and spoken else "") + spoken + ("" if over else _CUE)
        ids = self.codec.encode(shown)
        if not over:
            return Position(ids, False, 0.0, "", turn, game)
        rewards, infos = game.close()
        return Position(ids, True, float(rewards[0]), str(infos[0].get("reason", "")), turn, None)

    def _remember(self, seed: int, context: NDArray[np.int64], position: Position) -> None:
        self._positions[seed, context.tobytes()] = position
        if len(self._positions) > REMEMBERED:
            self._positions.popitem(last=False)
