"""Everything that hosts that boot want from elsewhere, made ahead: the image of Debian, and the wheels to install."""

from __future__ import annotations

from lab.machines.image import image
from lab.machines.wheels import wheelhouse

if __name__ == "__main__":
    print(image())
    print(wheelhouse())
