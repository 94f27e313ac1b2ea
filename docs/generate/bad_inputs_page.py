"""Bad inputs over all commands, also on a store and on one of imported maps, with the messages that they get; writes docs/bad-inputs.md.

python -m docs.generate bad_inputs
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import tempfile
from pathlib import Path

from heatlas.pipeline.cli import app

PAGE = Path(__file__).parents[1] / "bad-inputs.md"
MODEL = "heatlas.pipeline.demo.network:demo_model"
RUN = "explain --model torchvision:resnet18 --data images --out store"
INPUTS = f"""
explian
explain
explain stray
explain --model
explain --data images --out store
explain --model resnet18 --data images --out store
explain --model torchvision:resnet81 --data images --out store
explain --model nosuch_module:make --data images --out store
explain --model torchvision:resnet18 --data nowhere --out store
explain --model torchvision:resnet18 --data images --out images/store
explain --config imagenet-resnet51
explain --config broken.yaml
explain --config list.yaml
explain --config unknown.yaml
{RUN} --method sice
{RUN} --metrics drop
{RUN} --sise.mu 3
{RUN} --sise.mo 0.3
{RUN} --sise.fill grey
{RUN} --rise.masks 0
{RUN} --rise.p 1
{RUN} --workers many
{RUN} --workers -1
{RUN} --batch-size 0
{RUN} --budget 1
{RUN} --budget fats
{RUN} --precision fp8
{RUN} --device tpu
{RUN} --confidence sigmod
{RUN} --score sigmoid
{RUN} --floors 3
{RUN} --seed -1
{RUN} --limit 0
{RUN} --max-error-rate 2
{RUN} --preprocess.mean 0.5,0.5
{RUN} --preprocess.channels 0
{RUN} --store.map-size 0
{RUN} --where "nosuch > 1"
{RUN} --where "label ="
{RUN} --ids nowhere.txt
plan --look-at 0
bank --model torchvision:resnet18 --data images --out bank.txt
bank --model torchvision:resnet18 --data images
import --model torchvision:resnet18 --data images --out store
import --maps nowhere --model torchvision:resnet18 --data images --out store --method sise
evaluate nowhere
evaluate
curate
curate nowhere --recipe shortcut
cluster nowhere
report nowhere
compare nowhere
compare nowhere elsewhere --fail-if "ebpg"
export nowhere --format csv
export nowhere --format cvs --out rows.csv
export nowhere --format csv --out s3://bucket/rows.csv
compact nowhere --size many
layers
layers torchvision:resnet81 --untrained
layers torchvision:resnet18 --untrained --size 0
layers timm:resnet18 --untrained
methods sice
metrics --nams
show nowhere --limit many
status nowhere
summary nowhere
verify nowhere
demo --out s3://bucket/demo
demo --images many
demo --workers many
demo --out list.yaml
train
train ttam --model torchvision:resnet18 --data images --out explainer.safetensors
train ttame --model torchvision:resnet18 --data images --out explainer.txt
train ttame --model torchvision:resnet18 --data images --out explainer.safetensors --budget fast
choose
choose nowhere
choose nowhere nowhere
choose nowhere --methods rise
choose --model torchvision:resnet18 --data images --methods grad_cam --out trial
choose --model torchvision:resnet18 --data images --methods grad_cam sice --out trial
choose --model torchvision:resnet18 --data images --methods grad_cam rise --out trial --metrics nothing
choose --model torchvision:resnet18 --data images --methods grad_cam rise --out trial --count 0
edge nowhere --out edge
migrate nowhere
narrate nowhere
view nowhere
view nowhere --port 70000
decide nowhere
decide nowhere --kind drp
annotate push nowhere --tool coco
annotate push nowhere --tool paint --out tasks.json
annotate pull nowhere --tool coco --out tasks.json
""".strip().splitlines()
IMPORT = f"import --model {MODEL} --data photos --out other"
ON_STORES = f"""
import --maps nowhere --model {MODEL} --data photos --out other
{IMPORT} --maps broken.yaml
{IMPORT} --maps broken.npz --by position
{IMPORT} --maps two.npz --by position
{IMPORT} --maps two.npz --by position --array third
{IMPORT} --maps two.npz --by position --array few
{IMPORT} --maps maps.npy
{IMPORT} --maps maps.npy --by position --target both
{IMPORT} --maps maps.npy --by position --metrics max_sensitivity
{IMPORT} --maps maps.npy --by position --method-index 3
{IMPORT} --maps maps.npy --by position --sign plus
{IMPORT} --maps maps.npy --by position --budget fast
evaluate store --metrics nothing
evaluate store --metrics none
evaluate store --metrics layer_agreement
evaluate imported --metrics max_sensitivity
choose store store
choose store imported --by beauty
choose store imported --resamples 0
narrate store --language fr
narrate store --language broken.yaml
narrate store --id nobody.png
narrate store --limit 0
narrate store --method sice
narrate store --vlm nosuch_module:write
narrate store --vlm json
annotate push store --tool coco --out tasks.txt
annotate push store --tool coco --out tasks.json --limit 0
annotate push store --tool coco --out tasks.json --kind mask
annotate pull store --tool coco --from nowhere.json
view store --method sice
view store --port -1
view store --compare nowhere
decide store --from nowhere.csv
decide store --from broken.yaml
decide store --from queue.csv
decide store --id disc/0.png
decide store --id nobody.png --kind drop
decide store --id disc/0.png --kind relabel
decide store --id disc/0.png --kind relabel --label pentagon
decide store --id disc/0.png --kind drop --label disc
decide store --id disc/0.png --kind drop --round -1
decide store --manifest decided.txt
curate store --recipe shortcuts
curate store --recipe unstable
curate imported --recipe unstable
curate store --limit 0
curate store --param border
curate store --param shortcut.borde=0.5
curate store --param shortcut.border=7
curate store --out queue.txt
curate store --probs queue.csv
cluster store --min-size 1
cluster store --side 400
cluster store --target none
compare store store
compare store imported --metrics nothing
compare store imported --fail-if "nothing < 3"
compare store imported --limit 0
compare store imported --choice nowhere.parquet
compare store imported --choice list.yaml
report store --gallery 0
report store --method sice
report store --out store
export store --format csv --out rows.csv --where "nothing = 1"
export store --format csv --out rows.csv --where "label = 99"
export store --format csv --out rows.csv --columns nothing
export store --format csv --out photos
export store --format coco --out rows.csv
export store --format hf --out list.yaml
summary store --by colour
summary store --seed -1
show store --limit 0
show store --edges nothing
compact store --size 0
verify store --delete
status store/maps
""".strip().splitlines()
"""In a folder that holds a store and one of imported maps."""


def message_of(command: str) -> tuple[int, str]:
    """Exit code and message of one command line, run in the current folder."""
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        code = app.main(shlex.split(command))
    return code, stream.getvalue().rpartition("heatlas: error: ")[2].strip()


def messages() -> list[tuple[str, int, str]]:
    """Every input with its exit code and message, from a folder with an image, some files, and two stores of three images.

    Raises:
        RuntimeError: If a command that is refused wrote something.
    """
    from PIL import Image

    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            os.makedirs("images/a")
            Image.new("RGB", (8, 8)).save("images/a/x.png")
            Path("broken.yaml").write_text("a: [1", encoding="utf-8")
            Path("list.yaml").write_text("- a\n- b\n", encoding="utf-8")
            Path("unknown.yaml").write_text("batchsize: 3\n", encoding="utf-8")
            write_stores(Path.cwd())
            before = files()
            told = [(command, *message_of(command)) for command in [*INPUTS, *ON_STORES]]
            if files() != before:
                raise RuntimeError(f"a refused command wrote {sorted(files() ^ before)}")
            return [(command, code, message.replace(os.getcwd(), "FOLDER")) for command, code, message in told]
        finally:
            os.chdir(here)


def files() -> set[tuple[str, int]]:
    """Every file with its size."""
    return {(str(path), path.stat().st_size) for path in Path().rglob("*") if path.is_file()}


def write_stores(folder: Path) -> None:
    """Three images of the demo, a store of them, one of imported maps, and files of the wrong kind."""
    import heatlas
    import numpy as np
    from heatlas.pipeline.demo.dataset import demo_sample
    from PIL import Image

    (folder / "photos" / "disc").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(demo_sample("train", index).image).save(folder / "photos" / "disc" / f"{index}.png")
    maps = np.ones((3, 96, 96), np.float32)
    np.save("maps.npy", maps)
    np.savez("two.npz", all=maps, few=maps[:2])
    Path("broken.npz").write_text("no archive")
    Path("queue.csv").write_text("id,decision\ndisc/0.png,relabell\n")
    own = {"model": MODEL, "data": "photos", "metrics": ["drop_pct"], "chance_maps": 0, "workers": 0}
    logging.disable()
    try:
        heatlas.explain_dataset(**own, out="store", method="grad_cam", store={"map_size": "input"})
        heatlas.import_maps(maps, **own, out="imported", by="position")
    finally:
        logging.disable(logging.NOTSET)


def page() -> str:
    """The page's text."""
    rows = [
        f"| `heatlas {command.replace('|', chr(92) + '|')}` | {code} | {cell(message)} |"
        for command, code, message in messages()
    ]
    return "\n".join([
        "# Bad inputs and their messages", "",
        f"What {len(rows)} command lines that cannot be carried out are told, on stderr, with their exit codes: 2 for a request that cannot be "
        "carried out as written. Nothing is written by any of them. `store` and `imported` are small stores, the second of imported maps.", "",
        "Generated by `python -m docs.generate bad_inputs`; a test compares it with what the commands say.", "",
        "| command | exit code | message |", "|---|---|---|", *rows, "",
    ])  # fmt: skip


def cell(message: str) -> str:
    """A message in one cell of a table."""
    return " <br> ".join(
        line.strip().replace("|", "\\|").replace("<", "&lt;") for line in message.splitlines() if line.strip()
    )


def main() -> None:
    """Write docs/bad-inputs.md."""
    PAGE.write_text(page(), encoding="utf-8")
