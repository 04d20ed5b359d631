"""The label sets of other pipelines. Sources: the lists that the data sets and models publish."""

from rpcnn.labels import LabelSet

from .scheme import Scheme

_SIDES = {f"{side}-{part}": f"{side}-{part}" for part in ("arm", "leg", "shoe") for side in ("Left", "Right")}
_HEAD = ("Hat", "Hair", "Sunglasses", "Face")
_TOPS = ("UpperClothes", "Dress", "Coat")

# fmt: off
LIP = Scheme(
    LabelSet("LIP", (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants",
        "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe",
    ), pairs=((14, 15), (16, 17), (18, 19))),
    {name: name for name in ("Hat", "Hair", "Glove", "Sunglasses", "Dress", "Coat", "Socks", "Pants", "Scarf", "Skirt",
                             "Face", "Jumpsuits")} | {"UpperClothes": "Upper-clothes"} | _SIDES,
    source="Look into Person, 20 labels (Gong et al., CVPR 2017)",
    lost="Torso-skin becomes background, which is what LIP labels a neck; no pixel becomes Jumpsuits.",
)
ATR = Scheme(
    LabelSet("ATR", (
        "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
        "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
    ), pairs=((9, 10), (12, 13), (14, 15))),
    {name: name for name in ("Hat", "Hair", "Sunglasses", "Skirt", "Pants", "Dress", "Scarf", "Face")}
    | {"UpperClothes": "Upper-clothes", "Coat": "Upper-clothes"} | _SIDES,
    source="ATR (Liang et al., TPAMI 2015), 18 labels in the order of SCHP's and SegFormer's parsers trained on it",
    lost="Coats become Upper-clothes; gloves, socks and torso-skin background; no pixel becomes Belt or Bag.",
)
PASCAL_PERSON_PART = Scheme(
    LabelSet("PASCAL-Person-Part", (
        "Background", "Head", "Torso", "Upper-arms", "Lower-arms", "Upper-legs", "Lower-legs",
    )),
    {"Hat": "Head", "Hair": "Head", "Sunglasses": "Head", "Face": "Head", "UpperClothes": "Torso", "Dress": "Torso",
     "Coat": "Torso", "Torso-skin": "Torso", "Scarf": "Torso", "Glove": "Lower-arms", "Left-arm": "Lower-arms",
     "Right-arm": "Lower-arms", "Pants": "Upper-legs", "Skirt": "Upper-legs", "Left-leg": "Lower-legs",
     "Right-leg": "Lower-legs", "Socks": "Lower-legs", "Left-shoe": "Lower-legs", "Right-shoe": "Lower-legs"},
    source="PASCAL-Person-Part, 7 labels (Chen et al., CVPR 2014)",
    lost="Upper and lower limbs are not told apart: bare arms are Lower-arms, sleeves Torso, trousers Upper-legs.",
    may_be={
        "Head": _HEAD, "Torso": (*_TOPS, "Torso-skin", "Scarf"), "Upper-arms": (*_TOPS, "Left-arm", "Right-arm"),
        "Lower-arms": (*_TOPS, "Left-arm", "Right-arm", "Glove"),
        "Upper-legs": ("Dress", "Coat", "Pants", "Skirt", "Left-leg", "Right-leg"),
        "Lower-legs": ("Dress", "Pants", "Left-leg", "Right-leg", "Socks", "Left-shoe", "Right-shoe"),
    },
)
VITON = Scheme(
    LabelSet("VITON-HD", (
        "Background", "Hair", "Face", "Upper", "Bottom", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe",
        "Right-shoe", "Socks", "Noise",
    ), pairs=((5, 6), (7, 8), (9, 10))),
    {"Hat": "Hair", "Hair": "Hair", "Sunglasses": "Face", "Face": "Face", "UpperClothes": "Upper", "Dress": "Upper",
     "Coat": "Upper", "Pants": "Bottom", "Skirt": "Bottom", "Socks": "Socks", "Glove": "Noise", "Scarf": "Noise",
     "Torso-skin": "Background"} | _SIDES,
    source="VITON-HD (Choi et al., CVPR 2021), the 13 groups that its and HR-VITON's data loaders make of 20 labels",
    lost="Torso-skin is Background, hats are Hair, dresses and coats Upper, gloves and scarves Noise, as there.",
)
_LIMBS = (
    "Torso", "Right-hand", "Left-hand", "Left-foot", "Right-foot", "Upper-leg-right", "Upper-leg-left",
    "Lower-leg-right", "Lower-leg-left", "Upper-arm-left", "Upper-arm-right", "Lower-arm-left", "Lower-arm-right",
)
DENSEPOSE_PARTS = Scheme(
    LabelSet("DensePose parts", ("Background", *_LIMBS, "Head"),
             pairs=((3, 2), (4, 5), (7, 6), (9, 8), (10, 11), (12, 13))),
    dict.fromkeys(_HEAD, "Head") | dict.fromkeys((*_TOPS, "Torso-skin", "Scarf"), "Torso")
    | {"Left-arm": "Lower-arm-left", "Right-arm": "Lower-arm-right", "Left-leg": "Lower-leg-left",
       "Right-leg": "Lower-leg-right", "Left-shoe": "Left-foot", "Right-shoe": "Right-foot"},
    source="DensePose-COCO (Güler et al., CVPR 2018), the 14 coarse parts of its masks",
    lost="Pants, skirts, socks and gloves have no side and become background; bare arms and legs are their lower "
    "halves, sleeves Torso; nothing becomes a hand, an upper arm or leg. DensePose marks the body below the clothes.",
    may_be={"Head": _HEAD} | dict.fromkeys(_LIMBS, (
        *_TOPS, "Torso-skin", "Scarf", "Pants", "Skirt", "Left-arm", "Right-arm", "Glove", "Left-leg", "Right-leg",
        "Socks", "Left-shoe", "Right-shoe",
    )),
)
SAPIENS = Scheme(
    LabelSet("Sapiens", (
        "Background", "Apparel", "Face_Neck", "Hair", "Left_Foot", "Left_Hand", "Left_Lower_Arm", "Left_Lower_Leg",
        "Left_Shoe", "Left_Sock", "Left_Upper_Arm", "Left_Upper_Leg", "Lower_Clothing", "Right_Foot", "Right_Hand",
        "Right_Lower_Arm", "Right_Lower_Leg", "Right_Shoe", "Right_Sock", "Right_Upper_Arm", "Right_Upper_Leg", "Torso",
        "Upper_Clothing", "Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue",
    ), pairs=tuple((left, left + 9) for left in range(4, 12))),
    {"Hat": "Apparel", "Hair": "Hair", "Glove": "Apparel", "Sunglasses": "Apparel", "Scarf": "Apparel",
     "UpperClothes": "Upper_Clothing", "Dress": "Upper_Clothing", "Coat": "Upper_Clothing", "Pants": "Lower_Clothing",
     "Skirt": "Lower_Clothing", "Torso-skin": "Face_Neck", "Face": "Face_Neck", "Left-arm": "Left_Lower_Arm",
     "Right-arm": "Right_Lower_Arm", "Left-leg": "Left_Lower_Leg", "Right-leg": "Right_Lower_Leg",
     "Left-shoe": "Left_Shoe", "Right-shoe": "Right_Shoe"},
    source="Sapiens (Khirodkar et al., ECCV 2024), the 28 classes of its body-part models",
    lost="Socks have no side and become background; bare arms and legs are their lower halves; nothing becomes a hand, "
    "a foot, a bare Torso, lips, teeth or tongue. What a dress and a hat are there is not published: they become "
    "Upper_Clothing and Apparel.",
    may_be={
        "Apparel": ("Hat", "Glove", "Sunglasses", "Scarf"), "Hair": ("Hair",), "Face_Neck": ("Face", "Torso-skin"),
        "Torso": ("Torso-skin",), "Upper_Clothing": ("UpperClothes", "Coat"), "Lower_Clothing": ("Pants", "Skirt"),
        "Left_Shoe": ("Left-shoe",), "Right_Shoe": ("Right-shoe",), "Left_Sock": ("Socks",), "Right_Sock": ("Socks",),
    }
    | dict.fromkeys(("Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue"), ("Face",))
    | {f"{side}_{part}": (f"{side}-arm",) for side in ("Left", "Right") for part in ("Hand", "Lower_Arm", "Upper_Arm")}
    | {f"{side}_{part}": (f"{side}-leg",) for side in ("Left", "Right") for part in ("Foot", "Lower_Leg", "Upper_Leg")},
)
BODY = Scheme(
    LabelSet("body", ("Background", "Head", "Upper-body", "Arms", "Lower-body", "Legs", "Feet")),
    {"Hat": "Head", "Hair": "Head", "Sunglasses": "Head", "Face": "Head", "UpperClothes": "Upper-body",
     "Dress": "Upper-body", "Coat": "Upper-body", "Torso-skin": "Upper-body", "Scarf": "Upper-body", "Glove": "Arms",
     "Left-arm": "Arms", "Right-arm": "Arms", "Pants": "Lower-body", "Skirt": "Lower-body", "Left-leg": "Legs",
     "Right-leg": "Legs", "Socks": "Feet", "Left-shoe": "Feet", "Right-shoe": "Feet"},
    source="of this package: what masks for try-on and inpainting ask for",
    lost="A dress is Upper-body down to its hem.",
)
# fmt: on
SCHEMES = {
    "lip": LIP,
    "atr": ATR,
    "schp_atr": ATR,
    "pascal_person_part": PASCAL_PERSON_PART,
    "viton": VITON,
    "densepose_parts": DENSEPOSE_PARTS,
    "sapiens": SAPIENS,
    "body": BODY,
}
"""By the names that `--labels` and `--map-classes` take."""
