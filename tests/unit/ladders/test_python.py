"""Plans for Python environments."""

import pytest

from dlhealth.actions import ByHand
from dlhealth.ladders.python import pip_cudnn, replace_torch
from dlhealth.model import Plan


class TestTorch:
    """The plan that replaces a PyTorch."""

    def plan(
        self, manager: str, wheel: tuple[str, str] | None, installed: str = "2.7.0+cpu", **packages: str
    ) -> tuple[Plan, str]:
        plan = replace_torch("/v", "/v/bin/python", manager, installed, packages, wheel)
        return plan, plan.actions[0].summary()

    def test_only_the_build_differs_for_the_same_release(self) -> None:
        plan, summary = self.plan("pip", ("2.7.0", "cu126"), torchvision="0.22.0+cpu", torchaudio="2.7.0+cpu")
        assert summary == (
            "/v/bin/python -m pip install torch==2.7.0+cu126 torchvision==0.22.0+cu126 torchaudio==2.7.0+cu126 "
            "--index-url https://download.pytorch.org/whl/cu126"
        )
        assert plan.network

    def test_what_uv_made_has_no_pip(self) -> None:
        summary = self.plan("uv", ("2.7.0", "cu126"))[1]
        assert summary.startswith("uv pip install --python /v/bin/python torch==2.7.0+cu126 --index-url ")
        assert "with a Python that PyTorch 1.13.1 supports" in self.plan("uv", ("1.13.1", "cu117"))[1]

    @pytest.mark.parametrize(
        ("manager", "requirement", "start"),
        [
            ("pip", "nvidia-cudnn-cu12==9.1.0.70", "/v/bin/python -m pip install nvidia-cudnn-cu12==9.1.0.70"),
            ("uv", "nvidia-cudnn-cu12==9.1.0.70", "uv pip install --python /v/bin/python nvidia-cudnn-cu12==9.1.0.70"),
            ("", "nvidia-cudnn-cu12==9.1.0.70", "With the pip that installed PyTorch: pip install nvidia-cudnn-cu12"),
            ("pip", "", "Create a second virtual environment"),
        ],
    )
    def test_its_cudnn_comes_back(self, manager: str, requirement: str, start: str) -> None:
        assert pip_cudnn("/v/bin/python", manager, requirement).actions[0].summary().startswith(start)

    def test_pip_finds_what_goes_with_another_release(self) -> None:
        assert "torch==2.8.0+cu128 torchvision --index-url" in self.plan("pip", ("2.8.0", "cu128"), torchvision="1")[1]

    @pytest.mark.parametrize(
        ("manager", "wheel", "start"),
        [
            ("conda", ("2.8.0", "cu128"), "In the conda environment /v, run conda remove with those of pytorch"),
            ("", ("2.8.0", "cu128"), "Create a virtual environment"),
            ("pip", ("1.13.1", "cu117"), "Create a new environment with a Python that PyTorch 1.13.1 supports"),
            ("pip", None, "No prebuilt PyTorch fits"),
        ],
    )
    def test_what_pip_can_not_do_in_place_is_a_person_s(
        self, manager: str, wheel: tuple[str, str] | None, start: str
    ) -> None:
        plan, summary = self.plan(manager, wheel)
        assert isinstance(plan.actions[0], ByHand)
        assert summary.startswith(start)
        assert ("pip install torch==" in summary) == (wheel is not None)
