"""The names of classes, for a report that is made from records alone."""

from __future__ import annotations

from anchorloss.runs.record import Data

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""


def class_name(data: Data | None, index: int) -> str:
    """Name a class of a record's data set: as the record names it, as CIFAR does, or by its number."""
    known = {"cifar100": CIFAR100, "cifar10": CIFAR10}
    names: list[str] = []
    if data is not None:
        names = data.class_names or [name.replace("_", " ") for name in known.get(data.name, "").split()]
    return names[index] if index < len(names) else f"class {index}"
