"""A user's examples become a PEFT adapter that plain PEFT reads and `predict` uses."""

import csv
import json
import shutil

import peft
import pytest
import safetensors.torch
import torch
from torch.nn.functional import normalize

from experiments.adaptation import adapt
from experiments.adapted import batch_of
from experiments.errors import UserError
from experiments.prediction import Classifier, opened, predict
from experiments.run import run
from experiments.trained import TrainedRun
from meta_models.backbone import load_backbone
from tasks.episode import Example, TaskError
from tasks.sources.files import read_examples

EXAMPLES = [
    {"text": "give me my money back", "label": "return"},
    {"text": "the box never came", "label": "post"},
    {"text": "return these shoes, they are far too small for me", "label": "return"},
    {"text": "where is it", "label": "post"},
    {"text": "i want a refund", "label": "return"},
    {"text": "who are you", "label": "hello"},
]
NEW = [
    {"text": "it did not come", "label": "post"},
    {"text": "money back\tplease", "label": "return"},
    {"text": "what is this", "label": "other"},
]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def support(tmp_path_factory):
    return write(tmp_path_factory.mktemp("support") / "my.jsonl", EXAMPLES)


@pytest.fixture(scope="module")
def folder(tiny_run, support, tmp_path_factory):
    return adapt(tiny_run, support, tmp_path_factory.mktemp("out") / "adapter", learner="maml")


@pytest.fixture(scope="module")
def context_run(tiny_experiment, tmp_path_factory):
    """A run of a learner that adapts a soft prompt."""
    experiment = tiny_experiment.override({"learners": ("cavia",), "name": "context"})
    return run(experiment, tmp_path_factory.mktemp("runs") / "context")


def test_the_folder_holds_the_soft_prompt(context_run, support, tmp_path):
    test_the_folder_gives_the_logits_of_the_learner(context_run, support, tmp_path, "cavia")

    head = safetensors.torch.load_file(tmp_path / "adapter" / "head.safetensors")
    assert head["context"].shape == (4, 16)
    assert "before the input embeddings" in (tmp_path / "adapter" / "README.md").read_text().lower()


@pytest.mark.parametrize("learner", ["maml", "protonet", "finetune", "prototypes"])
def test_the_folder_gives_the_logits_of_the_learner(tiny_run, support, tmp_path, learner):
    folder = adapt(tiny_run, support, tmp_path / "adapter", learner=learner)
    new = read_examples(write(tmp_path / "new.jsonl", NEW), labeled=False)
    run = TrainedRun(tiny_run)
    cell = run.cell(learner)
    workshop = run.workshop(cell)
    trained = workshop.learner(learner)
    labels = ("hello", "post", "return")
    batch = batch_of(workshop.collator, read_examples(support), labels)
    adapted = trained.adapt(run.state(trained, cell)[0], batch)[-1]
    asked = [Example(e.id + 100, e.text, label="post") for e in new]
    expected = trained.predict(adapted, batch_of(workshop.collator, asked, labels))[0]
    classifier = opened(folder)
    assert classifier.labels == labels
    torch.testing.assert_close(classifier.logits(new), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # within PEFT
def test_plain_peft_gives_the_same_hidden_states_and_logits(folder):
    base = load_backbone("tiny-bert")
    model = peft.PeftModel.from_pretrained(base.model, str(folder)).eval()
    classifier = Classifier(folder)
    values = classifier.model.adapter.read(folder)
    fresh = load_backbone("tiny-bert").model
    head = safetensors.torch.load_file(folder / "head.safetensors")
    for example in read_examples(write(folder.parent / "new.jsonl", NEW), labeled=False):
        tokens = base.tokenizer(example.text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
            ours = classifier.model.adapter.hidden(
                values, tokens["input_ids"], tokens["attention_mask"].bool(), None
            )
            assert not torch.allclose(hidden, fresh(**tokens).last_hidden_state, atol=1e-3)
        torch.testing.assert_close(hidden, ours, rtol=1e-5, atol=1e-5)
        feature = normalize(hidden.mean(1), dim=-1)
        logits = head["scale"] * (feature @ head["head.weight"].T + head["head.bias"])
        torch.testing.assert_close(logits, classifier.logits([example]), rtol=1e-4, atol=1e-4)


def test_the_record_says_what_was_done(tiny_run, folder):
    record = json.loads((folder / "metalearn.json").read_text())
    assert record["labels"] == ["hello", "post", "return"]
    assert record["examples"] == {"hello": 1, "post": 2, "return": 3}
    assert (record["learner"], record["run"], record["steps"]) == ("maml", "first", 2)
    assert record["backbone"]["name"] == "tiny-bert"
    assert record["backbone"]["pooling"] == "mean"
    assert record["adapter"] == {"method": "lora", "options": {"r": 2}, "layers": None}
    assert record["support"]["after"]["loss"] < record["support"]["before"]["loss"]
    # the build ("+cpu") is part of torch's own version, not always of the package's
    assert torch.__version__.startswith(record["packages"]["torch"].split("+")[0])
    assert "- return (3)" in (folder / "README.md").read_text()
    assert [path for path in folder.parent.iterdir() if path.name.endswith(".tmp")] == []


def test_steps_replace_the_choice_of_the_run(tiny_run, support, tmp_path):
    losses = []
    for steps in (0, 4):
        folder = adapt(tiny_run, support, tmp_path / str(steps), learner="maml", steps=steps)
        record = json.loads((folder / "metalearn.json").read_text())
        assert record["steps"] == steps
        losses.append(record["support"]["after"]["loss"])
    assert losses[0] > losses[1]


@pytest.mark.parametrize("best", ["maml", "protonet"])
def test_the_best_trained_learner_is_the_default(tiny_run, support, tmp_path, capsys, best):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    result = json.loads((run / "result.json").read_text())
    for row in result["rows"]:  # what was not trained is better still, but not the default
        row["accuracy"]["mean"] = {best: 0.9, "finetune": 1.0, "prototypes": 1.0}.get(
            row["learner"], 0.5
        )
    (run / "result.json").write_text(json.dumps(result))
    folder = adapt(run, support, tmp_path / "out")
    assert json.loads((folder / "metalearn.json").read_text())["learner"] == best
    said = capsys.readouterr().out
    assert f"{best} of {run}" in said and "return" in said and "->" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learner": "mamml"}, "has no learner mamml; did you mean maml?"),
        ({"learner": "prototypes", "steps": 1}, "prototypes takes no inner steps"),
        ({"learner": "protonet", "steps": 3}, "protonet takes no inner steps"),
    ],
)
def test_learners_that_cannot_be_used_are_refused(tiny_run, support, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        adapt(tiny_run, support, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_unusable_input_is_refused(tiny_run, support, tmp_path):
    single = write(tmp_path / "single.jsonl", EXAMPLES[:1])
    with pytest.raises(UserError, match="single class, return; give at least two"):
        adapt(tiny_run, single, tmp_path / "out")
    with pytest.raises(TaskError, match="no file"):
        adapt(tiny_run, tmp_path / "missing.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match="exists and is not empty"):
        adapt(tiny_run, support, tmp_path)
    with pytest.raises(UserError, match="is no run folder"):
        adapt(tmp_path, support, tmp_path / "out")
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (run / "result.json").unlink()
    with pytest.raises(UserError, match=r"not finished.*metalearn train tiny --resume"):
        adapt(run, support, tmp_path / "out")


def test_a_run_on_numbers_is_refused(tiny_run, support, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    settings = json.loads((run / "config.json").read_text())
    settings["backbone"]["name"], settings["family"]["source"] = "mlp", "sinusoid"
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"regression with the mlp.*language model"):
        adapt(run, support, tmp_path / "out")


def test_predictions_go_to_files_and_pipes_alike(folder, tmp_path, capsys):
    new = write(tmp_path / "new.jsonl", NEW)
    capsys.readouterr()
    predict(folder, new)
    said = capsys.readouterr()
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert [line[0] for line in lines] == ["it did not come", "money back please", "what is this"]
    assert "of 3 labeled texts" in said.err and "does not have: other" in said.err
    predict(folder, new, tmp_path / "there" / "out.jsonl")
    predict(folder, new, tmp_path / "out.csv")
    written = (tmp_path / "there" / "out.jsonl").read_text()
    rows = [json.loads(line) for line in written.splitlines()]
    assert [row["label"] for row in rows] == [line[1] for line in lines]
    assert [row["text"] for row in rows] == [record["text"] for record in NEW]
    assert all(1 / 3 <= row["probability"] <= 1 for row in rows)
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [row["label"] for row in rows]


def test_texts_need_no_labels(folder, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("it did not come\n\nmoney back\n")
    predict(folder, tmp_path / "new.txt")
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err == ""


def test_many_texts_are_predicted_like_one(folder):
    classifier = Classifier(folder)
    texts = [f"{'so ' * (i % 7)}where is box {i}" for i in range(70)]
    examples = [Example(i, text) for i, text in enumerate(texts)]
    together = classifier.logits(examples)
    assert together.shape == (70, 3)
    alone = Classifier(folder).logits([examples[69]])
    torch.testing.assert_close(together[69:], alone, rtol=1e-4, atol=1e-4)


def test_prediction_mistakes_are_one_line(folder, tmp_path):
    new = write(tmp_path / "new.jsonl", NEW)
    with pytest.raises(UserError, match=r"has no metalearn.json"):
        predict(tmp_path, new)
    with pytest.raises(UserError, match=r"ends in \.jsonl or \.csv"):
        predict(folder, new, tmp_path / "out.txt")
    with pytest.raises(UserError, match="would replace the input"):
        predict(folder, new, new)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "head.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match=r"is damaged.*write it again"):
        predict(damaged, new)
