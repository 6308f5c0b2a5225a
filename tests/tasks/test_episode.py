"""Episodes as containers: select and map."""

import torch

from tasks.collate import Collator
from tasks.episode import Episode, EpisodeShape, TaskStream
from tasks.sources.sinusoid import Sinusoid


def make_episode(family, tokenizer) -> Episode:
    stream = TaskStream(family, "train", EpisodeShape((2, 3), (1, 3), 2), seed=0)
    return Collator(tokenizer).collate(stream.tasks([4, 5, 6, 7]), [4, 5, 6, 7])


def test_select_takes_tasks_of_every_tensor(family, tokenizer):
    episode = make_episode(family, tokenizer)
    part = episode.select(1, 3)
    assert part.index == (5, 6) and part.tasks == part.support.tasks == 2
    for whole, cut in ((episode.support, part.support), (episode.query, part.query)):
        assert cut.source == ("family", "family")
        assert cut.label_names == whole.label_names[1:3]
        assert torch.equal(cut.ids, whole.ids[1:3])
        assert torch.equal(cut.labels, whole.labels[1:3])
        assert torch.equal(cut.tokens.ids, whole.tokens.ids[1:3])
        assert torch.equal(cut.tokens.mask, whole.tokens.mask[1:3])
        assert torch.equal(cut.names.ids, whole.names.ids[1:3])


def test_map_reaches_every_tensor_and_leaves_the_rest(family, tokenizer):
    episode = make_episode(family, tokenizer)
    seen = []

    def note(tensor):
        seen.append(tensor)
        return tensor + 0

    copy = episode.map(note)
    # ids, example_mask, class_mask, class_ids, labels, tokens (2), names (2): support and query.
    assert len(seen) == 2 * 9
    assert copy.index == episode.index and copy.support.kind == "class"
    assert copy.support.tokens.segments is None
    assert copy.query.tokens.ids is not episode.query.tokens.ids


def test_map_can_change_the_type_of_numbers():
    stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=3), seed=0)
    episode = Collator(None).collate(stream.tasks([0]), [0])

    def double(tensor):
        return tensor.double() if tensor.is_floating_point() else tensor

    mapped = episode.map(double)
    assert mapped.support.inputs.dtype == torch.float64
    assert mapped.support.ids.dtype == torch.int64
