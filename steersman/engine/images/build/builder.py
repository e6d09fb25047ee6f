"""Goes through a Dockerfile, step by step, and makes an image of it.

Owns the meaning of the instructions, the stages and the layer cache. A step whose inputs have been seen before costs
nothing: its layer is taken from the cache. Called by the CLI and the Docker API. Source: the Dockerfile reference;
BuildKit's error texts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import posixpath
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from steersman.engine.images import manifest as formats
from steersman.engine.images import reference as references
from steersman.engine.images.build import dockerfile, expand, instructions, layer, workspace
from steersman.engine.images.build.context import Context, Source, SourceError
from steersman.engine.images.build.dockerfile import DockerfileError, Instruction
from steersman.engine.images.build.ignore import Ignore, IgnorePatternError
from steersman.engine.images.build.stage import PATH, Stage, manifest
from steersman.engine.images.build.workspace import Command, StepFailed, Tree
from steersman.engine.images.index import Layer
from steersman.engine.images.reference import InvalidReference
from steersman.engine.images.unpack import discard
from steersman.engine.interface import Image, PullFailed

if TYPE_CHECKING:
    from steersman.engine.images.store import ImageStore

Say = Callable[[str], None]
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_FLAGS = {
    "FROM": {"platform"},
    "COPY": {"from", "chown", "chmod", "link"},
    "ADD": {"chown", "chmod", "link"},
    "RUN": {"network"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "start-interval", "retries"},
}


class BuildFailed(Exception):
    """The image could not be built; the text says where and why."""


async def build(
    store: ImageStore,
    context: Path,
    *,
    dockerfile: Path | None = None,
    tags: Sequence[str] = (),
    arguments: Mapping[str, str] | None = None,
    target: str = "",
    cache: bool = True,
    progress: Say = lambda _: None,
) -> Image:
    """Build the image of a Dockerfile (default: `context`/Dockerfile) and tag it. Raises BuildFailed.

    `arguments`: values for ARG; `target`: the stage to stop at; `progress`: told of steps and output, line by line.
    """
    try:
        names = [references.parse(tag).tagged for tag in tags]
        file = dockerfile or context / "Dockerfile"
        text = await asyncio.to_thread(_read, context, file)
        made = _Build(store, Context(context, _ignore(context, file)), dict(arguments or {}), progress, cache=cache)
        async with store.keeping():
            return await made.run(text, target, names)
    except InvalidReference as error:
        raise BuildFailed(f"invalid tag: {error}") from error
    except (DockerfileError, StepFailed, SourceError, IgnorePatternError, PullFailed) as error:
        raise BuildFailed(f"failed to solve: {error}") from error
    except OSError as error:
        raise BuildFailed(f"failed to solve: {error.strerror or error}: {error.filename or ''}".rstrip(": ")) from error


def _read(context: Path, path: Path) -> str:
    if not context.is_dir():
        raise BuildFailed(f"unable to prepare context: path {str(context)!r} not found")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DockerfileError(f"failed to read dockerfile: open {path.name}: no such file or directory") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DockerfileError(f"failed to read dockerfile: {error}") from error


def _ignore(context: Path, file: Path) -> Ignore:
    """`NAME.dockerignore` beside the Dockerfile, else `.dockerignore` of the context."""
    for path in (file.with_name(f"{file.name}.dockerignore"), context / ".dockerignore"):
        if path.is_file():
            return Ignore(path.read_text(encoding="utf-8", errors="replace").splitlines())
    return Ignore(())


class _Build:
    """One build."""

    def __init__(
        self, store: ImageStore, context: Context, arguments: dict[str, str], say: Say, *, cache: bool
    ) -> None:
        self._store = store
        self._context = context
        self._arguments = arguments
        self._say = say
        self._use_cache = cache
        self._cache = store.root / "build-cache"
        self._cache.mkdir(exist_ok=True)
        self._global: dict[str, str] = {}
        self._stages: list[Stage] = []

    async def run(self, text: str, target: str, tags: Sequence[str]) -> Image:
        """Build and record the image."""
        found = dockerfile.parse(text)
        stages = _split(found, self._declare)
        wanted = _needed(stages, target, self._global)
        total = sum(1 + len(body) for index, (_, body) in enumerate(stages) if index in wanted)
        step = 0
        for index, (start, body) in enumerate(stages):
            name = _stage_name(start)
            if index not in wanted:
                self._stages.append(Stage(name))
                continue
            step += 1
            self._say(f"[{step}/{total}] {start}")
            stage = await self._begin(start, name)
            for instruction in body:
                step += 1
                self._say(f"[{step}/{total}] {instruction}")
                await self._apply(stage, instruction)
        return await self._record(self._stages[max(wanted)], tags)

    def _declare(self, instruction: Instruction) -> None:
        """An ARG before the first FROM."""
        for name, value in _arg_pairs(instruction, self._global):
            self._global[name] = self._arguments.get(name, value or "")

    async def _begin(self, start: Instruction, name: str) -> Stage:
        """FROM."""
        words = expand.words(start.text, self._global, start.escape)
        if not words:
            raise DockerfileError(f"base name ({start.text}) should not be blank")
        base = next((each for each in reversed(self._stages) if each.name and each.name == words[0].lower()), None)
        if base is not None:
            stage = Stage(name, json.loads(json.dumps(base.document)), list(base.layers))
        elif words[0] == "scratch":
            stage = Stage(name, {"config": {"Env": [f"PATH={PATH}"]}})
        else:
            stage = await self._from_image(words[0], name)
        self._stages.append(stage)
        triggers = stage.config.pop("OnBuild", None) or []
        for trigger in triggers:
            await self._apply(stage, dockerfile.parse_one(trigger, start.line))
        return stage

    async def _from_image(self, text: str, name: str) -> Stage:
        record = await self._image(text)
        document = json.loads(self._store.config(record.id))
        document["config"] = document.get("config") or {}
        stage = Stage(name, document, list(self._store.index.read()[record.id].layers))
        if "PATH" not in stage.env:
            stage.set_env("PATH", PATH)
        return stage

    async def _image(self, text: str) -> Image:
        try:
            references.parse(text)
        except InvalidReference as error:
            raise DockerfileError(f'failed to parse stage name "{text}": {error}') from error
        return self._store.find(text) or await self._store.pull(text)

    async def _apply(self, stage: Stage, instruction: Instruction) -> None:
        allowed = _FLAGS.get(instruction.keyword, set())
        for name, _ in instruction.flags:
            if name not in allowed:
                where = f"dockerfile parse error on line {instruction.line}"
                raise DockerfileError(f"{where}: {instruction.keyword} --{name} is not supported")
        try:
            await self._act(stage, instruction)
        except (StepFailed, SourceError) as error:
            raise StepFailed(f"{error} (Dockerfile:{instruction.line}: {instruction})") from error

    async def _act(self, stage: Stage, instruction: Instruction) -> None:
        keyword = instruction.keyword
        made: Layer | None = None
        what = str(instruction)
        if keyword == "RUN":
            made, what = await self._run(stage, instruction)
        elif keyword in ("COPY", "ADD"):
            made = await self._copy(stage, instruction)
        elif keyword == "WORKDIR":
            made = await self._workdir(stage, instruction)
        elif keyword == "ARG":
            for name, value in _arg_pairs(instruction, stage.variables):
                default = self._global.get(name) if value is None else value
                given = self._arguments.get(name, default)
                if given is not None:
                    stage.args[name] = given
        else:
            instructions.METADATA[keyword](stage, instruction)
        stage.remember(what, self._store.clock.now(), made)

    # steps that make layers

    async def _step(self, stage: Stage, key: str, work: Callable[[Tree], None]) -> Layer | None:
        """The layer of a step: from the cache, or by doing it. None when it changed nothing."""
        path = self._cache / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        known = self._cached(path) if self._use_cache else False
        if not isinstance(known, bool):
            self._say("CACHED")
            return known
        made = await asyncio.to_thread(self._do, [each.diff_id for each in stage.layers], work)
        if made is not None:
            await self._store.ready(formats.Descriptor(made.media_type, made.size, made.digest), made.diff_id)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(made))
        fresh.rename(path)
        return made

    def _cached(self, path: Path) -> Layer | bool | None:
        """The layer of a step done before, None if that changed nothing; False when it is not known any more."""
        try:
            known = msgspec.json.decode(path.read_bytes(), type=Layer | None)
        except (FileNotFoundError, msgspec.MsgspecError):
            return False
        if known is not None and not (
            self._store.content.has(known.digest) and self._store.layer_path(known.diff_id).exists()
        ):
            return False
        return known

    def _do(self, below: Sequence[str], work: Callable[[Tree], None]) -> Layer | None:
        layers = [self._store.layer_path(diff_id) for diff_id in dict.fromkeys(reversed(below))]
        bundle = self._store.content.temporary(".build")
        try:
            upper = workspace.in_workspace(layers, bundle, lambda tree: (work(tree), tree.upper)[1])
            return None if layer.is_empty(upper) else layer.pack(upper, self._store.content)
        finally:
            discard(bundle)

    async def _run(self, stage: Stage, instruction: Instruction) -> tuple[Layer | None, str]:
        words, display = _run_words(stage, instruction)
        env = list(stage.env.items())
        known = dict(env)
        extra = [(name, value) for name, value in stage.args.items() if name not in known]
        extra += [
            (name, value) for name, value in self._arguments.items() if name.upper() in _PROXIES and name not in known
        ]
        command = Command(words, [*env, *extra], stage.directory, stage.config.get("User") or "")

        def work(tree: Tree) -> None:
            code = workspace.run(tree, command, self._say)
            if code:
                raise StepFailed(f'process "{display}" did not complete successfully: exit code: {code}')

        return await self._step(stage, stage.key("RUN", words), work), f"RUN {display}"

    async def _copy(self, stage: Stage, instruction: Instruction) -> Layer | None:
        words = _copy_words(stage, instruction)
        target = words[-1]
        into = target.endswith(("/", "/.")) or target == "." or len(words) > 2
        place = posixpath.normpath(posixpath.join(stage.directory, target))
        owner = expand.expand(instruction.flag("chown"), stage.variables)
        mode = _mode(expand.expand(instruction.flag("chmod"), stage.variables))
        options = {"owner": owner, "mode": mode, "into": into, "unpack": instruction.keyword == "ADD"}
        wanted = expand.expand(instruction.flag("from"), self._global)
        if wanted:
            layers = await self._other(wanted)
            diff_ids = [path.name for path in layers]

            def work(tree: Tree) -> None:
                context = workspace.mount_other(tree, layers)
                found = [source for word in words[:-1] for source in context.find(word)]
                workspace.copy(tree, context, found, place, **options)  # type: ignore[arg-type]

            return await self._step(stage, stage.key("COPY", words, place, options, diff_ids), work)
        with_files = await asyncio.to_thread(self._sources, instruction, stage, words[:-1])
        context, found, digest = with_files
        if len(found) > 1 and not into:
            raise StepFailed("When using COPY with more than one source file, the destination must be a directory")
        try:
            key = stage.key("COPY", [source.name for source in found], place, options, digest)
            return await self._step(
                stage,
                key,
                lambda tree: workspace.copy(tree, context, found, place, **options),  # type: ignore[arg-type]
            )
        finally:
            if context is not self._context:
                discard(context.root)

    def _sources(
        self, instruction: Instruction, stage: Stage, words: Sequence[str]
    ) -> tuple[Context, list[Source], str]:
        """What to copy; embedded files become a context of their own."""
        if any(word.startswith(("http://", "https://", "git@")) for word in words):
            raise StepFailed("ADD from an address is not supported: fetch the file first, or use RUN")
        if not instruction.heredocs:
            found = [source for word in words for source in self._context.find(word)]
            return self._context, found, self._context.digest(found)
        directory = self._store.content.temporary()
        directory.mkdir()
        for each in instruction.heredocs:
            text = expand.unquoted(each.content, stage.variables) if each.expand else each.content
            (directory / each.name).write_text(text)
        context = Context(directory)
        found = [source for each in instruction.heredocs for source in context.find(each.name)]
        return context, found, context.digest(found)

    async def _other(self, wanted: str) -> list[Path]:
        """The layers that `--from` names: a stage by name or number, else an image."""
        stage = next((each for each in self._stages[:-1] if each.name and each.name == wanted.lower()), None)
        if stage is None and wanted.isdecimal() and int(wanted) < len(self._stages) - 1:
            stage = self._stages[int(wanted)]
        if stage is not None:
            diff_ids = dict.fromkeys(each.diff_id for each in reversed(stage.layers))
            return [self._store.layer_path(diff_id) for diff_id in diff_ids]
        return list(self._store.layers(await self._image(wanted)))

    async def _workdir(self, stage: Stage, instruction: Instruction) -> Layer | None:
        path = expand.expand(instruction.text, stage.variables, instruction.escape)
        stage.config["WorkingDir"] = place = posixpath.normpath(posixpath.join(stage.directory, path))
        owner = stage.config.get("User") or ""

        def work(tree: Tree) -> None:
            account = tree.identity(owner)
            tree.make_directory(place, (account.uid, account.gid))

        return await self._step(stage, stage.key("WORKDIR", place), work)

    async def _record(self, stage: Stage, tags: Sequence[str]) -> Image:
        """Write config and manifest, and give the image its names."""
        content = self._store.content
        raw = stage.finish(self._store.clock.now())
        config = await asyncio.to_thread(content.add, raw)
        body = manifest(config, len(raw), stage.layers)
        digest = await asyncio.to_thread(content.add, body)
        found = formats.read_manifest(body)
        image = await self._store.adopt(found, [digest], tag=tags[0] if tags else "")
        for tag in tags[1:]:
            await self._store.tag(image.id, tag)
        return self._store.find(image.id) or image


def _split(
    found: Iterable[Instruction], declare: Callable[[Instruction], None]
) -> list[tuple[Instruction, list[Instruction]]]:
    """Stages: each FROM with what follows it. ARGs before the first are `declare`d. Raises DockerfileError."""
    out: list[tuple[Instruction, list[Instruction]]] = []
    for instruction in found:
        if instruction.keyword == "FROM":
            out.append((instruction, []))
        elif out:
            out[-1][1].append(instruction)
        elif instruction.keyword == "ARG":
            declare(instruction)
        else:
            where = f"dockerfile parse error on line {instruction.line}"
            raise DockerfileError(f"{where}: no build stage in current context")
    if not out:
        raise DockerfileError("no build stage in current context")
    return out


def _stage_name(start: Instruction) -> str:
    words = start.text.split()
    if len(words) == 1:
        return ""
    if len(words) != 3 or words[1].upper() != "AS":
        raise DockerfileError(
            f"dockerfile parse error on line {start.line}: FROM requires either one or three arguments"
        )
    return words[2].lower()


def _needed(
    stages: Sequence[tuple[Instruction, list[Instruction]]], target: str, variables: Mapping[str, str]
) -> set[int]:
    """Numbers of the stages that the target (the last by default) is made from. Raises DockerfileError."""
    names = [_stage_name(start) for start, _ in stages]

    def number(text: str, before: int) -> int | None:
        for index in range(before - 1, -1, -1):
            if names[index] and names[index] == text.lower():
                return index
        return int(text) if text.isdecimal() and int(text) < before else None

    wanted = number(target, len(stages)) if target else len(stages) - 1
    if wanted is None:
        raise DockerfileError(f'target stage "{target}" could not be found')
    out: set[int] = set()
    todo = [wanted]
    while todo:
        index = todo.pop()
        if index in out:
            continue
        out.add(index)
        start, body = stages[index]
        uses = [expand.expand(start.text.split()[0], variables)]
        uses += [expand.expand(each.flag("from"), variables) for each in body if each.flag("from")]
        todo += [found for text in uses if (found := number(text, index)) is not None]
    return out


def _arg_pairs(instruction: Instruction, variables: Mapping[str, str]) -> list[tuple[str, str | None]]:
    out: list[tuple[str, str | None]] = []
    for word in expand.words(instruction.text, variables, instruction.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        out.append((name, value if equals else None))
    return out


def _run_words(stage: Stage, instruction: Instruction) -> tuple[list[str], str]:
    """The command line of a RUN and how it is shown."""
    if instruction.words is not None:
        return list(instruction.words), " ".join(instruction.words)
    text = instruction.text
    bare = dockerfile.without_heredocs(text)
    if instruction.heredocs and not bare:
        body = instruction.heredocs[0].content
        if body.startswith("#!"):
            interpreter = shlex.split(body.split("\n", 1)[0][2:])
            return [*interpreter, "-c", body], f"{interpreter[0]} <<{instruction.heredocs[0].name}"
        return [*stage.shell, body], f"{' '.join(stage.shell)} {body.strip()}"
    for each in instruction.heredocs:
        text += f"\n{each.content}{each.name}"
    return [*stage.shell, text], f"{' '.join(stage.shell)} {instruction.text}"


def _copy_words(stage: Stage, instruction: Instruction) -> list[str]:
    if instruction.words is not None:
        words = [expand.expand(word, stage.variables, instruction.escape) for word in instruction.words]
    else:
        words = expand.words(instruction.text, stage.variables, instruction.escape)
    if len(words) < 2:
        keyword = instruction.keyword
        raise DockerfileError(
            f"dockerfile parse error on line {instruction.line}: {keyword} requires at least two arguments, but only "
            "one was provided. Destination could not be determined"
        )
    return words


def _mode(text: str) -> int | None:
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise DockerfileError(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
    return mode
