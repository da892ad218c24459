"""`python -m bench NAME [options]` runs bench/NAME.py; `python -m bench` lists what there is."""

import ast
import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).resolve().parent


def benches() -> dict[str, str]:
    """Name -> the first line of what it says of itself, for every script with a main."""
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("*.py"))}
    return {
        name: ast.get_docstring(tree).splitlines()[0]
        for name, tree in trees.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body) and not name.startswith("_")
    }


def main(words: list[str]) -> int:
    known = benches()
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, known))
        print("python -m bench NAME [options]; each has --help\n")
        print("\n".join(f"  {name:<{width}}  {line}" for name, line in known.items()))
        return 0
    if words[0] not in known:
        print(f"bench: unknown bench {words[0]!r}; choose from {', '.join(known)}", file=sys.stderr)
        return 2
    path = HERE / f"{words[0]}.py"
    sys.argv = [str(path), *words[1:]]
    # The scripts find each other as they do when run by themselves, the package behind them.
    sys.path[0] = str(HERE)
    sys.path.append(str(HERE.parent))
    runpy.run_path(str(path), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
