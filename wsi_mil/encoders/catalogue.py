"""The table of published encoders: one row each, with what is known of its network, scale, licence and training data.

Facts are from the models' cards and their authors' code, read in November 2026. What those do not settle is empty or
"unknown": the first load records revision, digest and licence, and a later change is refused (`records.py`). A licence
here is a pointer, not advice: read the card before use.
"""

from __future__ import annotations

from typing import Any

from wsi_mil.encoders.entry import CLIP, HALF, HIBOU, IMAGENET, LUNIT, OPTIMUS, Entry

NC_ND = "CC-BY-NC-ND-4.0"
SWIGLU: dict[str, Any] = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
VIT_L: dict[str, Any] = {"init_values": 1e-5, "dynamic_img_size": True}
VIRCHOW: dict[str, Any] = {"img_size": 224, "mlp_ratio": 5.3375, "init_values": 1e-5, **SWIGLU}
KAIKO_PAPER, KAIKO_HUB = "Kaiko.ai 2024, arXiv:2404.15217", "1aurent/{}.kaiko_ai_towards_large_pathology_fms"
LUNIT_PAPER = "Kang et al. 2023, arXiv:2212.04690"
AT_20X = (0.5, 0.5)

UNI2: dict[str, Any] = {
    "img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 2.66667 * 2,
    "init_values": 1e-5, "no_embed_class": True, "reg_tokens": 8, "dynamic_img_size": True, **SWIGLU,
}  # fmt: skip
GIGAPATH: dict[str, Any] = {
    "img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 5.33334,
}  # fmt: skip

_ROWS = (
    Entry("uni", "UNI", "vit_large_patch16_224", 1024, 303_350_784, "cls", IMAGENET, VIT_L, mpp=AT_20X,
          hub="MahmoodLab/uni", file="pytorch_model.bin", revision="77ffbca1ee1cdcee6e87f6deebd2db8a5888c721",
          licence=NC_ND, commercial="no", gated="yes", saw_tcga="no",
          pretraining_data="Mass-100K: MGH, BWH and GTEx, 100,426 slides", paper="Chen et al. 2024, Nat Med 30:850"),
    Entry("uni2-h", "UNI2-h", "vit_giant_patch14_224", 1536, 681_394_176, "cls", IMAGENET, UNI2, mpp=AT_20X,
          hub="MahmoodLab/UNI2-h", file="pytorch_model.bin", licence=NC_ND, commercial="no", gated="yes",
          pretraining_data="Mass General Brigham, about 350,000 slides", paper="Chen et al. 2024, Nat Med 30:850"),
    Entry("virchow", "Virchow", "vit_huge_patch14_224", 2560, 631_229_184, "cls+mean", IMAGENET, VIRCHOW, mpp=AT_20X,
          filter="bicubic", tile_px=224, hub="paige-ai/Virchow", licence="Apache-2.0", commercial="yes", gated="yes",
          saw_tcga="no", pretraining_data="MSKCC, 1.5 million slides", paper="Vorontsov et al. 2024, Nat Med 30:2924"),
    Entry("virchow2", "Virchow2", "vit_huge_patch14_224", 2560, 631_239_424, "cls+mean", IMAGENET,
          {**VIRCHOW, "reg_tokens": 4}, mpp=(0.25, 2.0), filter="bicubic", tile_px=224, hub="paige-ai/Virchow2",
          licence=NC_ND, commercial="no", gated="yes", pretraining_data="MSKCC and others, 3.1 million slides",
          paper="Zimmermann et al. 2024, arXiv:2408.00738"),
    Entry("prov-gigapath", "Prov-GigaPath", "vit_giant_patch14_dinov2", 1536, 1_134_953_984, "cls", IMAGENET, GIGAPATH,
          resize_px=256, filter="bicubic", mpp=AT_20X, hub="prov-gigapath/prov-gigapath", file="pytorch_model.bin",
          gated="yes", saw_tcga="no", pretraining_data="Providence, 171,189 slides",
          paper="Xu et al. 2024, Nature 630:181"),
    Entry("h-optimus-0", "H-optimus-0", "vit_giant_patch14_reg4_dinov2", 1536, 1_134_774_272, "cls", OPTIMUS,
          {"img_size": 224, "init_values": 1e-5}, tile_px=224, filter="bicubic", mpp=AT_20X,
          hub="bioptimus/H-optimus-0", licence="Apache-2.0", commercial="yes",
          pretraining_data="proprietary, over 500,000 slides", paper="Saillard et al. 2024 (release)"),
    Entry("h-optimus-1", "H-optimus-1", "vit_giant_patch14_reg4_dinov2", 1536, 1_134_774_272, "cls", OPTIMUS,
          {"img_size": 224, "init_values": 1e-5}, tile_px=224, filter="bicubic", mpp=AT_20X,
          hub="bioptimus/H-optimus-1", gated="yes", paper="Bioptimus 2025 (release)"),
    Entry("h0-mini", "H0-mini", "vit_base_patch14_reg4_dinov2", 1536, 85_739_520, "cls+mean", OPTIMUS,
          {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334, **SWIGLU}, tile_px=224, filter="bicubic",
          mpp=AT_20X, hub="bioptimus/H0-mini", gated="yes", saw_tcga="probably",
          paper="Filiot et al. 2025, arXiv:2501.16239"),
    Entry("phikon", "Phikon", "vit_base_patch16_224", 768, 85_798_656, "cls", IMAGENET, {"norm_eps": 1e-12},
          tile_px=224, mpp=AT_20X, hub="owkin/phikon", layout="vit", licence="Owkin non-commercial", commercial="no",
          gated="no", saw_tcga="yes", pretraining_data="TCGA", paper="Filiot et al. 2023, medRxiv 2023.07.21.23292757"),
    Entry("phikon-v2", "Phikon-v2", "vit_large_patch16_224", 1024, 303_350_784, "cls", IMAGENET,
          {"init_values": 1e-5}, tile_px=224, mpp=AT_20X, hub="owkin/phikon-v2", layout="dinov2",
          licence="other (Owkin)", saw_tcga="probably", pretraining_data="over 100 public cohorts",
          paper="Filiot et al. 2024, arXiv:2409.09173"),
    Entry("hibou-b", "Hibou-B", "vit_base_patch14_reg4_dinov2", 768, 85_727_232, "cls", HIBOU, {"img_size": 224},
          tile_px=224, filter="bicubic", mpp=AT_20X, hub="histai/hibou-B", layout="dinov2",
          pretraining_data="proprietary, over 1 million slides", paper="Nechaev et al. 2024, arXiv:2406.05074"),
    Entry("hibou-l", "Hibou-L", "vit_large_patch14_reg4_dinov2", 1024, 303_230_976, "cls", HIBOU, {"img_size": 224},
          tile_px=224, filter="bicubic", mpp=AT_20X, hub="histai/hibou-L", layout="dinov2",
          pretraining_data="proprietary, over 1 million slides", paper="Nechaev et al. 2024, arXiv:2406.05074"),
    *(
        Entry(f"kaiko-{short}", f"Kaiko {short.upper()}", network, dim, parameters, "cls", HALF, arguments,
              mpp=(0.25, 2.0), hub=KAIKO_HUB.format(network), gated="no", saw_tcga="yes", pretraining_data="TCGA",
              paper=KAIKO_PAPER)
        for short, network, dim, parameters, arguments in (
            ("s8", "vit_small_patch8_224", 384, 21_670_272, {"dynamic_img_size": True}),
            ("s16", "vit_small_patch16_224", 384, 21_665_664, {"dynamic_img_size": True}),
            ("b8", "vit_base_patch8_224", 768, 85_807_872, {"dynamic_img_size": True}),
            ("b16", "vit_base_patch16_224", 768, 85_798_656, {"dynamic_img_size": True}),
            ("l14", "vit_large_patch14_reg4_dinov2", 1024, 304_370_688, {"img_size": 518, "dynamic_img_size": True}),
        )
    ),
    Entry("midnight-12k", "Midnight-12k", "vit_giant_patch14_dinov2", 3072, 1_134_769_664, "cls+mean", HALF,
          {"img_size": 224}, tile_px=224, mpp=(0.25, 2.0), hub="kaiko-ai/midnight", layout="dinov2", gated="no",
          saw_tcga="yes", pretraining_data="TCGA, 12,000 slides", paper="Karasikov et al. 2025, arXiv:2504.05186"),
    Entry("lunit-s8", "Lunit S/8", "vit_small_patch8_224", 384, 21_670_272, "cls", LUNIT, mpp=(0.25, 0.5),
          filter="bicubic", hub="1aurent/vit_small_patch8_224.lunit_dino", gated="no", saw_tcga="yes",
          pretraining_data="TCGA and TULIP", paper=LUNIT_PAPER),
    Entry("lunit-s16", "Lunit S/16", "vit_small_patch16_224", 384, 21_665_664, "cls", LUNIT, mpp=(0.25, 0.5),
          filter="bicubic", hub="1aurent/vit_small_patch16_224.lunit_dino", gated="no", saw_tcga="yes",
          pretraining_data="TCGA and TULIP", paper=LUNIT_PAPER),
    Entry("gpfm", "GPFM", "vit_large_patch14_dinov2", 1024, 303_227_904, "cls", IMAGENET,
          {"img_size": 224, "init_values": 1e-5}, tile_px=224, mpp=AT_20X, hub="majiabo/GPFM", file="GPFM.pth",
          layout="dinov2_original", saw_tcga="probably", paper="Ma et al. 2025, Nat Biomed Eng"),
    Entry("ctranspath", "CTransPath", "swin_tiny_patch4_window7_224", 768, 27_520_038, "network", IMAGENET,
          {"embed_layer": "ConvStem"}, mpp=(0.5, 1.0), layout="swin",
          file_sha256="7c998680060c8743551a412583fac689db43cec07053b72dfec6dcd810113539",
          saw_tcga="yes", pretraining_data="TCGA and PAIP", paper="Wang et al. 2022, Med Image Anal 81:102559"),
    Entry("conch-v1.5", "CONCH v1.5, vision tower", "vit_large_patch16_224", 768, 306_711_296, "network", IMAGENET,
          {"img_size": 448, "init_values": 1e-6, "tower": "AttentionPooled"}, input_px=448, tile_px=512, mpp=AT_20X,
          hub="MahmoodLab/conchv1_5", file="pytorch_model_vision.bin", licence=NC_ND, commercial="no", gated="yes",
          paper="Ding et al. 2025, Nat Med (TITAN)"),
    Entry("plip", "PLIP", "vit_base_patch32_clip_quickgelu_224", 512, 87_849_216, "network", CLIP,
          {"tower": "Projected"}, filter="bicubic", tile_px=224, mpp=AT_20X, hub="vinid/plip", layout="clip",
          gated="no", pretraining_data="OpenPath: pictures of Twitter and LAION",
          paper="Huang et al. 2023, Nat Med 29:2307"),
    Entry("resnet50", "ResNet-50 to its third stage (as CLAM)", "resnet50", 1024, 8_543_296, "network", IMAGENET,
          {"tower": "ThirdStage"}, hub="timm/resnet50.tv_in1k", layout="third_stage", licence="BSD-3-Clause",
          commercial="yes", gated="no", saw_tcga="no", pretraining_data="ImageNet-1k",
          paper="Lu et al. 2021, Nat Biomed Eng 5:555"),
    *(
        Entry(f"dinov2-{short}", f"DINOv2 {short.upper()} (natural images)", network, dim, parameters, "cls", IMAGENET,
              {"img_size": 518, "dynamic_img_size": True}, filter="bicubic", hub=f"timm/{network}.lvd142m",
              layout="dinov2_original", licence="Apache-2.0", commercial="yes", gated="no", saw_tcga="no",
              pretraining_data="LVD-142M", paper="Oquab et al. 2024, TMLR")
        for short, network, dim, parameters in (
            ("s14", "vit_small_patch14_dinov2", 384, 22_056_192),
            ("b14", "vit_base_patch14_dinov2", 768, 86_579_712),
        )
    ),
    *(
        Entry(f"dinov3-{short}", f"DINOv3 {short.upper()} (natural images)", network, dim, parameters, "cls", IMAGENET,
              filter="bicubic", hub=f"timm/{network}.lvd1689m", licence="DINOv3 licence", saw_tcga="no",
              pretraining_data="LVD-1689M", paper="Simeoni et al. 2025, arXiv:2508.10104")
        for short, network, dim, parameters in (
            ("s16", "vit_small_patch16_dinov3", 384, 21_586_944),
            ("b16", "vit_base_patch16_dinov3", 768, 85_641_216),
            ("l16", "vit_large_patch16_dinov3", 1024, 303_079_424),
        )
    ),
    Entry("vit-s16", "ViT-S/16 (ImageNet)", "vit_small_patch16_224", 384, 21_665_664, "cls", HALF, filter="bicubic",
          hub="timm/vit_small_patch16_224.augreg_in21k_ft_in1k", licence="Apache-2.0", commercial="yes", gated="no",
          saw_tcga="no", pretraining_data="ImageNet-21k", paper="Steiner et al. 2022, TMLR"),
)  # fmt: skip

CATALOGUE: dict[str, Entry] = {row.name: row for row in _ROWS}
"""Published encoders by the name that `extract.encoder` takes."""
