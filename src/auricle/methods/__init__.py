"""The methods by name. Nothing is imported before it is asked for.

Third parties add a method by an entry point of the group `auricle.methods`, whose value is a module with the attributes
of `auricle.methods.base.Method`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from auricle.errors import ConfigError, did_you_mean
from auricle.methods.base import Method, Preset, Recipe

if TYPE_CHECKING:
    from auricle.methods import asit, ssamba, ssast
    from auricle.methods.atst import clip, frame

    # A method that does not keep to the contract is an error of the type check.
    _CHECKED: tuple[Method, ...] = (ssast, ssamba, clip, frame, asit)

METHODS: dict[str, str] = {
    "ssast": "auricle.methods.ssast",
    "ssamba": "auricle.methods.ssamba",
    "atst-clip": "auricle.methods.atst.clip",
    "atst-frame": "auricle.methods.atst.frame",
    "asit": "auricle.methods.asit",
}


def method_names() -> list[str]:
    """Names of all methods, our own first."""
    return [
        *METHODS,
        *sorted(point.name for point in entry_points(group="auricle.methods") if point.name not in METHODS),
    ]


def get_method(name: str) -> Method:
    """The module of a method.

    Raises:
        ConfigError: no method of that name.
    """
    if name in METHODS:
        return cast(Method, importlib.import_module(METHODS[name]))
    for point in entry_points(group="auricle.methods"):
        if point.name == name:
            return cast(Method, point.load())
    names = method_names()
    raise ConfigError(f"no method '{name}'{did_you_mean(name, names)}; the methods are {', '.join(names)}.")


def get_preset(method: str, name: str) -> Preset:
    """A preset by its name within the method ("tiny-patch") or its full name ("ssast-tiny-patch").

    Raises:
        ConfigError: no such method or preset.
    """
    presets = get_method(method).PRESETS
    short = name.removeprefix(f"{method}-")
    if short not in presets:
        raise ConfigError(
            f"{method} has no preset '{name}'{did_you_mean(short, presets)}; its presets are {', '.join(presets)}."
        )
    return presets[short]


def find_preset(name: str) -> tuple[str, str]:
    """The method and the preset of a name like "ssast-demo"; two empty strings if no method has that name's beginning.

    A name without its method ("demo") does where only one method has such a preset.
    """
    for method in method_names():
        if name.startswith(f"{method}-"):
            return method, name.removeprefix(f"{method}-")
    having = [method for method in method_names() if name in get_method(method).PRESETS]
    return (having[0], name) if len(having) == 1 else ("", "")


def get_recipe(method: str, name: str) -> Recipe:
    """A recipe of a method by its name.

    Raises:
        ConfigError: no such method or recipe.
    """
    recipes = get_method(method).RECIPES
    if name not in recipes:
        known = f"its recipes are {', '.join(recipes)}" if recipes else "it has none"
        raise ConfigError(f"{method} has no recipe '{name}'{did_you_mean(name, recipes)}; {known}.")
    return recipes[name]


def preset_names() -> list[str]:
    """Full names of all presets, e.g. "ssast-tiny-patch"."""
    return [f"{method}-{preset}" for method in method_names() for preset in get_method(method).PRESETS]
