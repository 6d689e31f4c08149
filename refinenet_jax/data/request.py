"""Which data set is wanted."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class FolderLabels:
    """How the label files of a person's own folder are to be read.

    Attributes:
      encoding: "ids" for grey or palette files of class ids, "colours" for files whose
        colours are the classes, "labelme", "coco", "panoptic" and "label_studio" for
        what these tools write.
      offset: what is added to a value to have the class id; -1 where 1 is the first.
      ignore: values of pixels that do not count, before the offset is added.
      suffix: what the name of a label has behind the name of its image.
      classes: the file that lists the classes, in the folder or anywhere.
      val_share: of the images, where nothing says what is for what.
      split_seed: chooses them.
    """

    encoding: str
    offset: int
    ignore: tuple[int, ...]
    suffix: str
    classes: str
    val_share: float = 0.2
    split_seed: int = 0


@dataclasses.dataclass(frozen=True)
class Request:
    """Which data set is wanted, and where its files are.

    Attributes:
      name: the data set, see `datasets.lookup`.
      data_dir: where prepared data lives; "" for TFDS's own place.
      manual_dir: the data set as its authors distribute it; "" to download it.
      damaged: what to do with files that cannot be decoded: "stop" or "skip".
      folder: how the labels of a person's own folder are read.
      cache_dir: where this host keeps its own copy of the prepared data; "" for none.
      channels: of pictures that are asked for, such as those of a network; 0: as the
        data has.
      not_finite: what to do with pictures that hold NaN or infinity: "refuse", or
        "ignore", where such pixels do not count.
    """

    name: str
    data_dir: str
    manual_dir: str
    damaged: str
    folder: FolderLabels
    cache_dir: str = ""
    channels: int = 0
    not_finite: str = "refuse"
