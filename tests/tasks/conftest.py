"""A small word-piece tokenizer and small families for the tests of `tasks`."""

import string

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tasks.episode import Example
from tasks.sources.records import RecordFamily

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["card", "pay", "ment", "late"]


def make_tokenizer(template: bool = True, **special: str) -> PreTrainedTokenizerFast:
    """Known words are one token, other words fall into characters."""
    characters = string.ascii_letters + string.digits + string.punctuation
    pieces = [*SPECIAL, *WORDS, *characters, *("##" + c for c in characters), "##ment"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=200))
    core.pre_tokenizer = Whitespace()
    if template:
        core.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """An encoder's tokenizer: [CLS] text [SEP], pairs, pad token."""
    return make_tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


@pytest.fixture(scope="session")
def decoder_tokenizer() -> PreTrainedTokenizerFast:
    """A decoder's tokenizer: no template, no pad token, an end token."""
    return make_tokenizer(template=False, eos_token="[SEP]")


@pytest.fixture
def family() -> RecordFamily:
    """Nine classes of twelve examples in three meta-splits, texts of varying length."""
    names = [f"class_{c}" for c in range(9)]
    records = [
        Example(i, f"card {names[i % 9]} {'late ' * (i % 5)}{i}", label=names[i % 9])
        for i in range(9 * 12)
    ]
    splits = {"train": names[:3], "valid": names[3:6], "test": names[6:]}
    return RecordFamily("family", "class", records, splits)
