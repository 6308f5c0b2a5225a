"""Episodes of tensors: masks, alignment, and tokens kept."""

import numpy as np
import pytest
import torch

from tasks.collate import Collator, label_text
from tasks.episode import IGNORE, EpisodeShape, Example, Task, TaskError, TaskStream
from tasks.sources.files import read_examples
from tasks.sources.records import RecordFamily
from tasks.sources.sinusoid import Sinusoid
from tasks.splits import draw_record_splits


class Counting:
    """A tokenizer that notes the texts of every call."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.calls: list[list[str]] = []

    def __call__(self, texts, *arguments, **options):
        self.calls.append(texts)
        return self.tokenizer(texts, *arguments, **options)

    def __getattr__(self, name: str):
        return getattr(self.tokenizer, name)


def task_of(*examples: Example, kind="class", names=(), source="mine") -> Task:
    """The first example is the support, the others are the query."""
    return Task(source, kind, examples[:1], examples[1:], names, tuple(range(len(names))))


def test_masks_say_what_is_real_when_ways_and_shots_vary(family, tokenizer):
    stream = TaskStream(family, "train", EpisodeShape((2, 3), (1, 4), 2), seed=1)
    tasks = stream.tasks(range(6))
    sizes = {(len(t.label_names), len(t.support)) for t in tasks}
    assert len({n for n, _ in sizes}) > 1 and len({b for _, b in sizes}) > 2
    episode = Collator(tokenizer).collate(tasks, range(6))
    assert episode.index == tuple(range(6))
    for batch, rows in (
        (episode.support, [t.support for t in tasks]),
        (episode.query, [t.query for t in tasks]),
    ):
        assert batch.tokens.ids.shape[:2] == batch.ids.shape == batch.labels.shape
        assert batch.ids.shape[1] == max(map(len, rows)) and batch.class_mask.shape[1] == 3
        for t, (task, row) in enumerate(zip(tasks, rows, strict=True)):
            real, ways = len(row), len(task.label_names)
            assert batch.example_mask[t].tolist() == [b < real for b in range(batch.ids.shape[1])]
            assert batch.class_mask[t].tolist() == [c < ways for c in range(3)]
            assert batch.ids[t, :real].tolist() == [e.id for e in row]
            assert batch.class_ids[t, :ways].tolist() == list(task.class_ids)
            names = [task.label_names[c] for c in batch.labels[t, :real]]
            assert names == [e.label for e in row]
            assert (batch.labels[t, real:] == IGNORE).all()
            assert (batch.ids[t, real:] == -1).all() and (batch.class_ids[t, ways:] == -1).all()
            assert not batch.tokens.mask[t, real:].any()
            assert batch.tokens.mask[t, :real, 0].all()


def test_tokens_are_the_tokenizers_own_and_trimmed(family, tokenizer):
    task = TaskStream(family, "train", EpisodeShape(2, 2, 2), seed=0).task(0)
    episode = Collator(tokenizer).collate([task], [0])
    for batch, row in ((episode.support, task.support), (episode.query, task.query)):
        tokens = batch.tokens
        for b, example in enumerate(row):
            expected = tokenizer(example.text)["input_ids"]
            assert tokens.ids[0, b][tokens.mask[0, b]].tolist() == expected
        assert tokens.mask[0].any(0).all(), "a column without any token is not trimmed"
        assert (tokens.ids[~tokens.mask] == tokenizer.pad_token_id).all()
        assert tokens.ids.dtype == torch.int64 and tokens.mask.dtype == torch.bool
    assert episode.support.tokens.segments is None


def test_long_texts_are_cut(tokenizer):
    texts = (Example(0, "card " * 50, label="a"), Example(1, "late", label="a"))
    episode = Collator(tokenizer, max_length=16).collate([task_of(*texts, names=("a",))], [0])
    assert episode.support.tokens.ids.shape == (1, 1, 16)
    assert episode.query.tokens.ids.shape == (1, 1, 3)


def test_every_record_is_tokenized_once_and_all_new_ones_in_one_call(family, tokenizer):
    counting = Counting(tokenizer)
    collator = Collator(counting)
    stream = TaskStream(family, "train", EpisodeShape(3, 2, 2), seed=0)
    first = collator.collate(stream.tasks([0, 1]), [0, 1])
    assert len(counting.calls) == 2, "one call for texts, one for label names"
    for start in range(2, 12, 2):
        collator.collate(stream.tasks([start, start + 1]), [start, start + 1])
    texts = [text for call in counting.calls for text in call]
    assert len(texts) == len(set(texts))
    calls = len(counting.calls)
    again = collator.collate(stream.tasks([0, 1]), [0, 1])
    assert len(counting.calls) == calls
    assert torch.equal(first.query.tokens.ids, again.query.tokens.ids)


def test_kept_tokens_are_not_served_for_other_data(tokenizer):
    collator = Collator(tokenizer)
    texts = ["card", "late"]
    for text in (*texts, texts[0]):
        examples = (Example(0, text, label="a"), Example(1, text + " pay", label="a"))
        episode = collator.collate([task_of(*examples, names=("a",))], [0])
        assert episode.support.tokens.ids[0, 0].tolist() == tokenizer(text)["input_ids"]
    # Two different families of one name in one episode cannot both be right.
    tasks = [
        task_of(Example(0, text, label="a"), Example(1, "pay", label="a"), names=("a",))
        for text in texts
    ]
    with pytest.raises(TaskError, match="two families of one episode are named 'mine', and rec"):
        collator.collate(tasks, [0, 1])


def test_label_names_are_tokenized_as_phrases(tokenizer):
    assert label_text("Card_payment-fee") == "card payment fee"
    assert label_text("-") == "-"
    examples = (Example(0, "x", label="Late_card"), Example(1, "y", label="pay"))
    tasks = [
        task_of(*examples, names=("Late_card", "pay")),
        task_of(examples[1], examples[1], names=("pay",)),
    ]
    episode = Collator(tokenizer).collate(tasks, [0, 1])
    names = episode.support.names
    assert names is episode.query.names
    assert names.ids.shape == (2, 2, 4)
    assert names.ids[0, 0].tolist() == tokenizer("late card")["input_ids"]
    assert names.ids[1, 0][names.mask[1, 0]].tolist() == tokenizer("pay")["input_ids"]
    assert not names.mask[1, 1].any()


def test_pairs_have_segments_and_single_texts_may_stand_beside_them(tokenizer):
    pair = Example(0, "card", "late pay", label="a")
    single = Example(1, "card late", label="a")
    tasks = [task_of(pair, single, names=("a",)), task_of(single, pair, names=("a",))]
    support = Collator(tokenizer).collate(tasks, [0, 1]).support
    encoded = tokenizer("card", "late pay")
    assert support.tokens.ids[0, 0].tolist() == encoded["input_ids"]
    assert support.tokens.segments[0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert support.tokens.segments[1, 0].tolist() == [0] * 6
    assert support.tokens.mask[1, 0].tolist() == [True] * 4 + [False] * 2


def test_decoders_without_pad_or_pair_template(decoder_tokenizer):
    examples = (
        Example(0, "card", "late", targets=("pay",)),
        Example(1, "pay", targets=("card late",)),
    )
    episode = Collator(decoder_tokenizer).collate([task_of(*examples, kind="sequence")] * 2, [0, 1])
    assert decoder_tokenizer.pad_token_id is None
    tokens = episode.support.tokens
    assert tokens.segments is None
    assert tokens.ids[0, 0].tolist() == decoder_tokenizer("card\nlate")["input_ids"]
    end = decoder_tokenizer.eos_token_id
    targets = episode.query.targets
    assert targets.ids[0, 0].tolist() == [*decoder_tokenizer("card late")["input_ids"], end]


def test_targets_end_even_when_cut(decoder_tokenizer):
    examples = (Example(0, "x", targets=("card " * 20,)), Example(1, "y", targets=("pay",)))
    task = task_of(*examples, kind="sequence")
    targets = Collator(decoder_tokenizer, max_length=5).collate([task], [0]).support.targets
    card = decoder_tokenizer("card")["input_ids"]
    assert targets.ids[0, 0].tolist() == [*card * 4, decoder_tokenizer.eos_token_id]
    assert targets.mask.all()


def test_targets_of_encoder_tokenizers_have_no_special_tokens(tokenizer):
    examples = (Example(0, "x", targets=("late", "unused")), Example(1, "y", targets=("pay card",)))
    episode = Collator(tokenizer).collate([task_of(*examples, kind="sequence")], [0])
    assert episode.support.labels is None and episode.support.names is None
    assert episode.support.class_mask.shape == (1, 0)
    assert tokenizer.convert_ids_to_tokens(episode.query.targets.ids[0, 0]) == ["pay", "card"]


def test_tags_sit_on_the_first_token_of_each_word(tokenizer):
    tagged = Example(0, "card payment is late", token_labels=("B-x", "I-x", "O", "B-x"))
    other = Example(1, "card", token_labels=("O",))
    task = task_of(tagged, other, kind="token", names=("B-x", "I-x", "O"))
    batch = Collator(tokenizer).collate([task], [0]).support
    pieces = tokenizer.convert_ids_to_tokens(batch.tokens.ids[0, 0])
    assert pieces == ["[CLS]", "card", "pay", "##ment", "i", "##s", "late", "[SEP]"]
    expected = [IGNORE, 0, 1, IGNORE, 2, IGNORE, 0, IGNORE]
    assert batch.token_labels[0, 0].tolist() == expected
    assert batch.labels is None


def test_tags_of_cut_words_are_left_out(tokenizer):
    words = 30
    examples = [
        Example(i, "card " * (words - 1) + "late", token_labels=("O",) * words) for i in range(2)
    ]
    task = task_of(*examples, kind="token", names=("O",))
    labels = Collator(tokenizer, max_length=10).collate([task], [0]).support.token_labels
    assert labels.tolist() == [[[IGNORE, *[0] * 8, IGNORE]]]


def test_values_are_float32_and_padded_with_zeros():
    tasks = TaskStream(Sinusoid(), "train", EpisodeShape(shots=(2, 6)), seed=0).tasks(range(5))
    episode = Collator(None).collate(tasks, range(5))
    support = episode.support
    assert support.tokens is None and support.names is None
    assert support.inputs.dtype == support.values.dtype == torch.float32
    assert support.inputs.shape == support.values.shape == (*support.ids.shape, 1)
    assert episode.query.inputs.shape == (5, 5, 1)
    for t, task in enumerate(tasks):
        expected = np.array([e.values for e in task.support], dtype=np.float32)
        assert torch.equal(support.values[t, : len(expected)], torch.from_numpy(expected))
        assert not support.inputs[t, len(expected) :].any()


@pytest.mark.parametrize(
    ("tasks", "indices", "message"),
    [
        ([], [], "0 tasks with 0 indices"),
        ([task_of(Example(0, "x", label="a"), names=("a",))], [0, 1], "1 tasks with 2 indices"),
        ([task_of(kind="class"), task_of(kind="token")], [0, 1], "cannot mix the kinds"),
        (
            [task_of(Example(4, "\u200b \u200b", label="a"))],
            [0],
            "record 4: the tokenizer finds no",
        ),
    ],
)
def test_what_makes_no_episode_is_refused(decoder_tokenizer, tasks, indices, message):
    class Blind(Counting):
        def __call__(self, texts, *arguments, **options):
            return {"input_ids": [[] for _ in texts]}

    with pytest.raises(TaskError, match=message):
        Collator(Blind(decoder_tokenizer)).collate(tasks, indices)


def test_text_needs_a_tokenizer(family):
    task = TaskStream(family, "train", EpisodeShape(2, 1, 1), seed=0).task(0)
    with pytest.raises(TaskError, match="kind 'class' needs a tokenizer"):
        Collator(None).collate([task], [0])


# Real data


def test_wnut17_tags_every_word_once(data, tokenizer):
    examples = read_examples("wnut17/data.jsonl.gz", kind="token", text="source", label="targets")
    family = RecordFamily("wnut17", "token", examples, draw_record_splits(examples, seed=0))
    tasks = TaskStream(family, "train", EpisodeShape(shots=6, queries=4), seed=0).tasks([0, 1])
    batch = Collator(tokenizer, max_length=512).collate(tasks, [0, 1]).support
    for t, task in enumerate(tasks):
        for b, example in enumerate(task.support):
            row = batch.token_labels[t, b]
            names = tuple(task.label_names[c] for c in row[row != IGNORE])
            assert names == example.token_labels


@pytest.mark.parametrize("name", ["jfleg", "dialogsum"])
def test_generation_sets_give_targets(data, tokenizer, name):
    path = f"{name}/data.jsonl.gz"
    examples = read_examples(path, kind="sequence", text="source", label="targets")
    family = RecordFamily(name, "sequence", examples, draw_record_splits(examples, seed=0))
    task = TaskStream(family, "test", EpisodeShape(shots=2, queries=3), seed=0).task(0)
    query = Collator(tokenizer, max_length=256).collate([task], [0]).query
    assert query.targets.ids.shape[:2] == (1, 3) and query.targets.mask[0, :, 0].all()
    for b, example in enumerate(task.query):
        expected = tokenizer(example.targets[0], add_special_tokens=False)["input_ids"][:256]
        assert query.targets.ids[0, b][query.targets.mask[0, b]].tolist() == expected


def test_leopard_pairs_give_segments(data, tokenizer):
    examples = read_examples("leopard/data.jsonl.gz", text_b="text_b")
    pairs = [example for example in examples if example.text_b][:3000]
    classes = sorted({example.label for example in pairs})
    family = RecordFamily("leopard", "class", pairs, {"test": classes})
    task = TaskStream(family, "test", EpisodeShape(2, 2, 3), seed=0).task(0)
    tokens = Collator(tokenizer).collate([task], [0]).support.tokens
    assert tokens.segments.shape == tokens.ids.shape
    assert (tokens.segments.amax(-1) == 1).all()
