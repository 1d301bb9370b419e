"""From a preset to a folder of results: what `bin/reproduce_figures` calls."""

import functools
import pathlib
import sys

import pandas as pd
from tqdm import tqdm

from deformstab._version import __version__
from deformstab.deformations.splines import warn_if_folding
from deformstab.paper.figures import style
from deformstab.paper.figures.catalogue import FIGURES, drawable, resolve
from deformstab.paper.pages import claims_page, folder_page
from deformstab.paper.runs import (
    apart,
    executors,
    measuring_again,
    question_experiments,
    runs,
)
from deformstab.paper.runs.experiments import MORE_MEASURES
from deformstab.paper.runs.kept_networks import KeptNetworks
from deformstab.paper.runs.locks import only_writer
from deformstab.paper.runs.output_folder import (
    PROVENANCE,
    as_trained,
    refuse_other_results,
    runs_drawn,
)
from deformstab.paper.runs.preset import APART, Preset
from deformstab.paper.runs.progress import progress_bar
from deformstab.paper.runs.recipes import check_images
from deformstab.paper.verdicts import (
    approximations,
    changes_by_kind,
    claims,
    claims_by_choice,
    note_statements,
    other_networks,
    pooling_shifts,
    questions,
    training_paths,
)
from deformstab.paper.verdicts.result_tables import Results
from deformstab.presentation.streams import surviving
from deformstab.provenance import provenance
from deformstab.tables import remove_temporaries, write_csv, write_json, write_text


def reproduce(
    preset: Preset,
    output_dir,
    figures=(),
    command="bin/reproduce_figures",
    executor=executors.serial,
    networks: KeptNetworks | None = None,
    finished_only: bool = False,
) -> Results:
    """Runs what is not finished, then writes tables, figures, claims and provenance.

    Args:
        preset: all choices.
        output_dir: of the results. Another configuration's results in it are refused.
        figures: names of figures ("2") or panels ("2c"), by default all. Only the runs of
            studies they show are run; finished ones beside them are drawn as well.
        command: for the index, what was typed, but for `--studies` and `--recipes`: it says which
            of them are in the folder.
        executor: where runs run, one of `deformstab.paper.runs.executors`.
        networks: where the weights of what is run are kept; by default nowhere.
        finished_only: whether to run nothing, and draw what is finished.

    Returns:
        The results that were drawn.

    Raises:
        ValueError: an unknown figure; an output folder of another configuration, or one that
            another process writes into; nothing is run, and nothing is finished.
    """
    wanted, output_dir = drawable(resolve(figures), preset, figures), pathlib.Path(output_dir)
    with only_writer(output_dir):
        remove_temporaries(output_dir, PROVENANCE)  # a kill's, before the folder was anybody's
        refuse_other_results(output_dir, preset)
        for folder in ("", "tables", "figures", "runs"):
            remove_temporaries(output_dir / folder)
        sizes = question_experiments.sizes_in(output_dir / "runs")
        experiments = preset.every_experiment(sizes)  # once: it reads all data from disk
        needed = _in_order(_needed(experiments, preset, wanted, figures), preset)
        if finished_only:
            needed = [each for each in needed if runs.finished(each, output_dir)]
            if not needed:
                raise ValueError(f"{output_dir} has no finished run of what is asked for to draw")
        _check_labels(needed)
        _check_data([each for each in needed if not runs.finished(each, output_dir)])
        there = runs.check_files(experiments, output_dir)
        if not (output_dir / PROVENANCE).exists():  # now the folder is this configuration's
            write_json(_provenance(preset), output_dir / PROVENANCE)
        _run(needed, output_dir, executor, networks)
        there += [each for each in needed if each not in there]
        results = _write(preset, output_dir, experiments, wanted, command, there)
        runs.check_there(there, output_dir)
        return results


def _write(preset, output_dir, experiments, wanted, command, there) -> Results:
    """Tables, figures and pages of all finished runs; `there` must be among them."""
    tables, seconds = runs.collect(experiments, output_dir, there)
    results = Results(preset, tables)
    verdicts = claims.evaluate(results)
    extra = {
        "approximations": approximations.approximations(),
        "pooling_shifts": pooling_shifts.pooling_shifts(),
        "choices": results.choices(),
        "claims": verdicts,
        "claims_by_choice": claims_by_choice.claims_by_choice(results),
        "claims_over_training": claims_by_choice.claims_over_training(results),
        "changes_by_kind": changes_by_kind.changes_by_kind(results),
        "other_networks": other_networks.other_networks(results),
        "note_statements": note_statements.note_statements(results),
        "questions": questions.questions(results),
        "paths": training_paths.path_shapes(results),
    }
    measured = ("sensitivity", "smoothness", *MORE_MEASURES, "variants")
    beside = {name: results.with_accuracies(name) for name in measured}
    written = {name: table for name, table in (tables | extra | beside).items() if len(table)}
    for name, table in written.items():
        # Networks compute in float32, with 7 digits; the files of runs keep all of them.
        write_csv(table, output_dir / "tables" / f"{name}.csv", digits=9)
    complete = [name for name in FIGURES if name in wanted or _picture(output_dir, name).exists()]
    # What was drawn of fewer runs would stand above a caption of these.
    if runs_drawn(output_dir) == set(seconds):
        drawn = [name for name in complete if name in wanted]
    else:
        drawn = complete
    for name in tqdm(drawn, desc="figures", leave=False, file=surviving(sys.stderr)):
        spec = FIGURES[name]
        path = _picture(output_dir, name).with_suffix("")
        style.save(spec.plot(results), spec.caption(results), path)
    write_text(claims_page.claims_page(results, extra), output_dir / "claims.md")
    by_study = _seconds_by_study(experiments, seconds)
    finished = [each for each in experiments if each.id in seconds]
    page = folder_page.index_page(
        results, verdicts, complete, written, command, finished, by_study, output_dir
    )
    write_text(page, output_dir / "README.md")
    done = {"seconds": sum(seconds.values()), "seconds_by_study": by_study}
    done |= {"seconds_per_run": seconds, **_provenance(preset)}
    write_json(done, output_dir / PROVENANCE)
    return results


def _picture(output_dir, name) -> pathlib.Path:
    return output_dir / "figures" / f"figure_{name}.png"


def _seconds_by_study(experiments, seconds) -> dict[str, float]:
    found = dict.fromkeys((each.study for each in experiments if each.id in seconds), 0.0)
    for each in experiments:
        if each.id in seconds:
            found[each.study] = round(found[each.study] + seconds[each.id], 2)
    return found


def list_runs(preset: Preset, output_dir, figures=()) -> pd.DataFrame:
    """What `reproduce` would run, in that order; nothing starts.

    Returns:
        A row a run: `run`, `finished`, and estimates: `seconds` on two cores and `gigabytes`.
    """
    wanted = drawable(resolve(figures), preset, figures)
    refuse_other_results(pathlib.Path(output_dir), preset)
    rows = [
        {
            "run": each.id,
            "finished": runs.finished(each, output_dir),
            "seconds": round(each.cost),
            "gigabytes": round(each.memory / 2**30, 1),
        }
        for each in _in_order(_needed(preset.every_experiment(), preset, wanted, figures), preset)
    ]
    types = {"run": str, "finished": bool, "seconds": int, "gigabytes": float}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _needed(experiments, preset, wanted, figures) -> list:
    """Of the figures asked for, the runs they need; of all, those of all studies asked for."""
    for name, shown in wanted.items() if figures else ():
        if shown and not shown & set(preset.studies):
            raise ValueError(
                f"figure {name} shows the studies {', '.join(sorted(shown))}, which --studies="
                f"{','.join(preset.studies)} leaves out; drop --studies (or --init_only)"
            )
    studies = set().union(*wanted.values()) if figures else set(preset.studies)
    return [each for each in experiments if each.study in studies and preset.asks_for(each)]


def _in_order(experiments, preset) -> list:
    """Seed after seed: what is stopped early has all kinds of fewer seeds.

    Recipes come last, as they are compared with the main study, and one after the other.
    """
    recipes = ["", *preset.recipes]
    return sorted(experiments, key=lambda each: (recipes.index(each.choice), each.seed))


def _check_labels(experiments) -> None:
    """Refuses a kind of downsampling that figures would leave out."""
    shown = {each.downsampling for each in apart.networks_of(experiments)}
    style.check_labels(shown, style.KIND_LABELS, "downsampling")


def _check_data(experiments) -> None:
    """What can fail or surprise does so before the first run: missing data, folding deformations."""
    kinds_of_data = ("study", "task", "class_displacement", "choice", "train_images")
    by_data = {}
    for asked in experiments:
        for each in apart.networks_of([asked]):
            key = tuple(getattr(each, name) for name in kinds_of_data)
            by_data.setdefault(key, (asked, each))
    for asked, each in by_data.values():
        data = runs.dataset_of(each)
        check_images(each, len(data.x_train))
        if asked.study == question_experiments.QUESTIONS:
            question_experiments.refuse_too_few(asked, len(data.x_train))
        height, width = data.image_shape[:2]
        for reach in {each.max_displacement, each.class_displacement}:
            points = (each.control_points, each.control_points)
            warn_if_folding(points, (reach, reach), height, width)


def measure_again(
    preset: Preset, output_dir, networks: KeptNetworks, executor=executors.serial
) -> pd.DataFrame:
    """Measures the kept networks of a folder's runs, without training, with the measures of now.

    Tables go to `measured_again/tables` in the folder; its own stay as they are. What was measured
    before by this version of the package is not measured again. `preset.more_measures` may be
    others than when they were trained.

    Args:
        preset: as for `reproduce`.
        output_dir: of results that `reproduce` wrote.
        networks: where their weights were kept.
        executor: as for `reproduce`.

    Returns:
        `measuring_again.missing`: a row a run of which a network is not there.

    Raises:
        ValueError: the folder is of another configuration; no network of its runs is kept.
    """
    output_dir = pathlib.Path(output_dir)
    folder = output_dir / measuring_again.FOLDER
    trained = as_trained(output_dir, preset)
    both = zip(preset.every_experiment(), trained.every_experiment(), strict=True)
    both = [pair for pair in both if runs.finished(pair[1], output_dir)]
    finished = [each for _, each in both if each.study not in APART]
    there = [now for now, each in both if each in finished and networks.has_any(each)]
    if not finished:
        raise ValueError(
            f"{output_dir} has no finished run whose networks can be measured again: those of "
            f"{', '.join(APART)} are measured by their own runs only"
        )
    if not there:
        raise ValueError(
            f"{networks.folder} holds no network of the {len(finished)} runs in {output_dir}: give "
            "the folder that --keep_networks named when they were run"
        )
    with only_writer(folder):
        remove_temporaries(folder / "tables")
        runs.check_files(there, folder, whole=False)
        _run(there, folder, executor, networks, measuring_again.execute)
        tables, _ = runs.collect(there, folder, there, whole=False)
        missing = measuring_again.missing(finished, networks)
        for name, table in {**tables, "missing": missing}.items():
            if len(table):
                write_csv(table, folder / "tables" / f"{name}.csv", digits=9)
    return missing


def _run(experiments, output_dir, executor, networks=None, measure=None):
    left = [each for each in experiments if not runs.finished(each, output_dir)]
    if not left:
        return
    if networks is not None:
        measure = functools.partial(measure or runs.execute, networks=networks)
    with progress_bar(left) as progress:
        runs.run_all(left, output_dir, progress, executor, measure)


def _provenance(preset) -> dict:
    return {
        "configuration": preset.configuration(),
        "finished_when": "configuration and package version are equal; the git commit may differ",
        "package_version": __version__,
        **provenance(),
    }
