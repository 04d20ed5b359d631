"""Dressing: skin, hair and garments of one person as layers, from the skin outwards."""

import numpy as np

from rpcnn import _rendered

from . import accessories, complexion
from .bodies import Body, Person, Posed
from .drapes import Drapery
from .fabrics import Fabrics, draw_color
from .layers import Layer
from .wardrobe import Garment, Wardrobe

HAIR, GLOVE, UPPER, DRESS, COAT, SOCKS, PANTS, SKIRT, FACE, SHOE_LEFT, SHOE_RIGHT = 2, 3, 5, 6, 7, 8, 9, 12, 13, 18, 19


class Dresser:
    """Dresses people out of a wardrobe."""

    def __init__(self, body: Body, wardrobe: Wardrobe, fabrics: Fabrics):
        self.body, self.wardrobe, self.fabrics = body, wardrobe, fabrics
        self.drapery, self.speckles = Drapery(body), complexion.stubble()

    def dress(self, rng: np.random.Generator, person: Person, posed: Posed) -> list[Layer]:
        """The layers of one person in its own frame; left and right are the person's own."""
        return _Dressing(self, rng, person, posed).layers


class _Dressing:
    def __init__(self, dresser: Dresser, rng, person: Person, posed: Posed):
        self.body, self.wardrobe, self.fabrics = dresser.body, dresser.wardrobe, dresser.fabrics
        self.drapery, self.speckles = dresser.drapery, dresser.speckles
        self.rng, self.person, self.posed = rng, person, posed
        self.female = person.sex == 0
        self.layers: list[Layer] = []
        self.covered = np.zeros(self.body.size, bool)
        self.bare_from: float | None = None  # height from which the legs are bare, at rest
        base = self.body.points
        self.out, self.up = np.abs(base[:, 0]), base[:, 1]
        at = {
            bone: self.body.at(f"{bone}.L")
            for bone in ("upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")
        }
        self.shoulder, self.elbow, self.wrist = (at[bone][0] for bone in ("upperarm01", "lowerarm01", "wrist"))
        self.hip, self.knee, self.ankle = (at[bone][1] for bone in ("upperleg01", "lowerleg01", "foot"))
        self._clothes()
        socks = self._feet()
        self._skin(*socks)
        self._head()

    # -- garments

    def wear(self, garment: Garment, label, material, clip=None, bias=0.1, loose=0.0):
        """Add a garment, `loose` decimeters (a number or [N, 1]) wider than it was made.

        `clip` is a function of its base points [N, 3]: what is kept is where it is >= 0.
        """
        points = garment.fit(self.posed.rest, self.posed.blended)
        if np.any(loose):
            points = points + np.asarray(loose, np.float32) * garment.mesh.normals(points)
        labels = np.full(len(garment.triangles), label, np.uint8) if np.isscalar(label) else label
        cut = None if clip is None else np.ascontiguousarray(clip(garment.base), np.float32)
        self.layers.append(Layer(garment.mesh, points, labels, material, None, cut, bias))

    def pick(self, kind: str, own: float = 0.85) -> Garment | None:
        """A garment of a kind, mostly one made for the person's sex."""
        every = self.wardrobe[kind]
        fitting = [garment for garment in every if garment.sex in (None, self.person.sex)]
        choice = fitting if fitting and self.rng.random() < own else every
        return choice[self.rng.integers(len(choice))] if choice else None

    def cloth(self, garment: Garment, dye: dict | None = None, own: float = 0.3) -> _rendered.Material:
        """Its own picture with a turned hue, or dyed."""
        rng = self.rng
        looks = dict(
            fold_slopes=self.fabrics.folds(rng), folds=float(rng.uniform(0, 0.55)),
            fold_scale=float(rng.uniform(1.5, 5)), occlusion=0.8, gloss=float(rng.uniform(6, 30)),
            shine=float(rng.uniform(0.05, 0.3) if rng.random() < 0.15 else rng.uniform(0, 0.03)),
        )  # fmt: skip
        if dye is None and garment.has_picture and rng.random() < own:
            return _rendered.Material(garment.texture, tint=_turned_hue(rng), **looks)
        dye = dye or self.fabrics.draw_dye(rng)
        return _rendered.Material(
            garment.texture, mean=garment.lightness, contrast=float(rng.uniform(0.6, 1.8)), **looks, **dye
        )

    def _sleeve(self, dress: bool) -> float:
        """How far from the middle the sleeves reach, at rest."""
        rng = self.rng
        short = self.shoulder + rng.uniform(0.5, 1.1)
        kinds = (99, self.elbow + rng.uniform(-0.5, 0.8), short, self.shoulder + rng.uniform(-0.25, 0.25))
        return kinds[rng.choice(4, p=(0.2, 0.1, 0.22, 0.48) if dress else (0.46, 0.12, 0.3, 0.12))]

    def _neckline(self):
        """A function of base points [N, 3], negative where the neckline leaves the skin bare."""
        rng = self.rng
        kind = rng.choice(4, p=(0.5, 0.27, 0.15, 0.08) if self.female else (0.74, 0.21, 0.05, 0.0))
        deep, wide = (
            (0.1, 0.4),
            (rng.uniform(0.5, 1.0), rng.uniform(0.6, 1.0)),
            (rng.uniform(0.9, 1.6), rng.uniform(0.7, 1.2)),
            (rng.uniform(0.9, 1.25), 4.0),  # strapless
        )[kind]
        pointed = 1.0 if rng.random() < 0.4 else 2.0
        behind = deep * (rng.uniform(0.15, 0.6) if kind < 3 else 0.8)
        neck = float(self.body.at("neck01")[1]) + 0.15

        def bare(p):
            front = np.clip(p[:, 2] + 0.5, 0, 1)
            depth = behind + (deep - behind) * front
            across, down = np.abs(p[:, 0]) / wide, np.maximum(neck - p[:, 1], 0) / depth
            return (across**pointed + down**pointed) ** (1 / pointed) - 1

        return bare

    def _clothes(self):
        rng, female, person = self.rng, self.female, self.person
        swim = rng.random() < 0.025
        grown = not swim and not person.child
        suit = grown and bool(self.wardrobe["jacket"]) and rng.random() < (0.05 if female else 0.17)
        dress = not swim and not suit and rng.random() < (0.32 if female else 0.012)
        if suit:
            self._suit()
            return
        dye = self.fabrics.draw_dye(rng) if dress else None
        if not swim:
            self._top(dress, dye)
        elif female:
            self._bikini()
        if dress or (female and not swim and rng.random() < 0.14):
            self._skirt(DRESS if dress else SKIRT, dye)
        else:
            self._trousers(swim)

    def _skirt(self, label: int, dye: dict | None):
        """The lower half of a dress, or a skirt: of the wardrobe, or hanging freely, mini to floor-length."""
        rng = self.rng
        skirt = self.pick("skirt", 0)
        if skirt and rng.random() < 0.25:
            hem = -99 if rng.random() < 0.6 else rng.uniform(-2.6, -1.2)
            self.wear(skirt, label, self.cloth(skirt, dye), lambda p: p[:, 1] - hem, 0.11 if dye else 0.12)
            self.bare_from = skirt.low
            return
        kinds = (
            (self.hip - 2.6, self.hip - 1.7),
            (self.knee - 0.5, self.knee + 1.4),
            (self.ankle - 0.5, self.knee - 1),
        )
        hem = rng.uniform(*kinds[rng.choice(3, p=(0.3, 0.42, 0.28))])
        self._drape(label, hem, dye, rng.uniform(0.02, 0.15), 0.105 if dye else 0.12)
        self.covered |= np.isin(self.body.vertex_labels, (16, 17)) & (self.up > hem + 0.5)
        self.bare_from = hem

    def _drape(self, label: int, hem: float, dye: dict | None, loose: float, bias: float, opening=None):
        rng, drapery = self.rng, self.drapery
        flare, folds = rng.choice((0.0, rng.uniform(0, 1.2))), rng.uniform(0, 0.3)
        points = drapery.fit(rng, self.posed, loose, flare, folds)
        clip = drapery.heights - hem
        if opening is not None:
            clip = np.minimum(clip, np.where(drapery.front > 0, np.abs(drapery.sideways) - opening, 9))
        material = _rendered.Material(
            self.fabrics.plain, mean=1.02, fold_slopes=self.fabrics.folds(rng), folds=float(rng.uniform(0, 0.5)),
            fold_scale=float(rng.uniform(0.5, 2)), shine=float(rng.uniform(0, 0.15)), gloss=float(rng.uniform(5, 25)),
            **(dye or self.fabrics.draw_dye(rng)),
        )  # fmt: skip
        labels = np.full(len(drapery.triangles), label, np.uint8)
        self.layers.append(Layer(drapery.mesh, points, labels, material, None, clip.astype(np.float32), bias))

    def _top(self, dress: bool, dye: dict | None):
        rng = self.rng
        sleeve, bare = self._sleeve(dress), self._neckline()
        top = self.pick("top")
        while top.low > 1.5 and rng.random() < 0.9:
            top = self.pick("top")
        over = not dress and rng.random() < 0.2  # a coat or jacket over it
        if over:
            sleeve = min(sleeve, self.shoulder)
        low = self.drapery.waist - 0.05 if dress else -99.0

        def cut(p):
            return np.minimum(np.minimum(sleeve - np.abs(p[:, 0]), bare(p)), p[:, 1] - low)

        self.wear(
            top,
            DRESS if dress else UPPER,
            self.cloth(top, dye),
            cut,
            0.05 if over else 0.13,
            0 if over or dress else rng.choice((0.0, rng.uniform(0, 0.16))),
        )
        hidden = top.deleted & (self.up > max(top.low + 0.25, 0.9)) & (self.out < sleeve - 0.25)
        self.covered |= hidden & (bare(self.body.points) > 0.25)
        if not dress and not over and rng.random() < 0.12:  # a long shirt
            self._drape(UPPER, rng.uniform(self.hip - 2.0, self.hip - 0.5), dye, rng.uniform(0.1, 0.2), 0.125)
        if over:
            self._coat()

    def _bikini(self):
        top = min(self.wardrobe["top"], key=lambda top: (top.sex != 0, -top.low))
        low, high = self.hip + 3.0, self.shoulder + 2.95 + self.rng.uniform(0, 0.3)
        self.wear(top, UPPER, self.cloth(top), lambda p: np.minimum(p[:, 1] - low, high - p[:, 1]), 0.1)

    def _coat(self):
        rng = self.rng
        coat = self._long_sleeved() if rng.random() < 0.85 else self.pick("top")
        wide, slope = rng.uniform(0.05, 0.6), rng.uniform(-0.05, 0.16)
        closed = rng.random() < 0.4
        arm = 99.0 if rng.random() < 0.9 else self.shoulder
        dye = self.fabrics.draw_dye(rng, plain=0.8)

        def cut(p):
            opening = 9 if closed else np.maximum(np.abs(p[:, 0]) - wide - slope * (5.5 - p[:, 1]), -p[:, 2] + 0.1)
            return np.minimum(arm - np.abs(p[:, 0]), opening)

        self.wear(coat, COAT, self.cloth(coat, dye), cut, 0.35, rng.uniform(0.1, 0.3))
        self.covered |= coat.deleted & (self.out > self.shoulder - 0.2) & (self.out < min(arm, coat.reach) - 0.25)
        if rng.random() < 0.3:
            hem = rng.uniform(self.knee - 1.2, self.hip - 1.2)
            self._drape(COAT, hem, dye, rng.uniform(0.25, 0.45), 0.3, None if closed else wide + 0.3)

    def _long_sleeved(self) -> Garment:
        """A top whose sleeves reach the wrists, if there is one."""
        long = [top for top in self.wardrobe["top"] if top.reach > self.wrist - 0.6]
        own = [top for top in long if top.sex in (None, self.person.sex)]
        choice = own or long or self.wardrobe["top"]
        return choice[self.rng.integers(len(choice))]

    def _suit(self):
        rng = self.rng
        jackets = self.wardrobe["jacket"]
        jacket = jackets[rng.integers(len(jackets))]
        labels = np.full(len(jacket.triangles), COAT, np.uint8)
        if jacket.light is not None:
            labels[jacket.light] = UPPER  # shirt and tie
        if rng.random() < 0.35:
            material = self.cloth(jacket, own=1.0)
        else:  # dyed by lightness: the shirt stays light
            material = _rendered.Material(
                jacket.texture, tint=_suit_tint(rng), fold_slopes=self.fabrics.folds(rng), folds=0.25, fold_scale=3.0
            )
        self.wear(jacket, labels, material, bias=0.14)
        self.covered |= jacket.deleted & (self.up > 0.6)
        own = [garment for garment in self.wardrobe["pants"] if garment.cloth is jacket.cloth]
        trousers = own[0] if own else self.pick("pants")
        self.wear(trousers, PANTS, material if own and rng.random() < 0.7 else self.cloth(trousers), bias=0.1)
        self.covered |= trousers.deleted & (self.up <= 0.6)

    def _trousers(self, swim: bool):
        rng = self.rng
        trousers = self.pick("pants")
        cut = -99.0
        if swim:
            cut = self.hip - 1.0
        elif rng.random() < (0.3 if self.person.child else 0.15):
            cut = rng.uniform(self.knee - 0.5, self.knee + 1.9)
        wide = rng.choice((0.0, rng.uniform(0, 0.2), rng.uniform(0, 0.5)), p=(0.45, 0.35, 0.2))
        loose = wide * np.clip((self.hip - trousers.base[:, 1:2]) / 6, 0.1, 1)  # wider at the feet
        self.wear(trousers, PANTS, self.cloth(trousers, own=0.45), lambda p: p[:, 1] - cut, 0.1, loose)
        self.covered |= trousers.deleted & (self.up < min(trousers.high - 0.3, 0.9)) & (self.up > cut + 0.3)
        self.bare_from = cut if cut > -50 else None

    # -- feet and skin

    def _feet(self):
        """Shoes and socks. Returns how high socks drawn on the legs reach and their material, or None, None."""
        rng = self.rng
        if not self.wardrobe.shoes or rng.random() < 0.07:
            return None, None
        shoes, socks = self.wardrobe.shoes[rng.integers(len(self.wardrobe.shoes))]
        labels = np.where(shoes.base[shoes.triangles[:, 0], 0] > 0, SHOE_LEFT, SHOE_RIGHT).astype(np.uint8)
        self.wear(shoes, labels, self.cloth(shoes, own=0.5), bias=0.12)
        self.covered |= self.body.vertex_foot & (self.up < self.ankle - 0.25)
        if rng.random() < 0.4:
            return None, None
        material = accessories.plain(self.fabrics, draw_color(rng))
        if self.bare_from is not None and rng.random() < 0.65:
            high = rng.uniform(self.ankle + 0.4, self.knee - 0.2) if rng.random() < 0.75 else self.hip - 1.5
            return high, material
        if socks:
            self.wear(socks, SOCKS, material, bias=0.06)
        return None, None

    def _skin(self, sock_height, sock_material):
        rng, body = self.rng, self.body
        skin = complexion.pick_skin(rng, self.person, self.wardrobe.skins)
        tint = complexion.skin_tint(rng, self.person, skin)
        material = _rendered.Material(
            skin.texture,
            tint=tint,
            softness=0.35,
            shine=float(rng.uniform(0.02, 0.12)),
            gloss=float(rng.uniform(8, 25)),
        )
        keep = ~self.covered[body.triangles].all(1)
        labels = body.labels.copy()
        points = self.posed.points
        if sock_height is not None:
            sock = keep & (body.centers[:, 1] < sock_height)
            self.layers.append(
                Layer(body.mesh, points, np.full(len(labels), SOCKS, np.uint8), sock_material, sock, bias=0.02)
            )
            keep &= ~sock
        if rng.random() < 0.06:
            hand = keep & body.hand
            glove = accessories.plain(self.fabrics, draw_color(rng), shine=float(rng.uniform(0, 0.2)))
            puffed = points + np.float32(rng.uniform(0.02, 0.08)) * body.mesh.normals(points)
            self.layers.append(Layer(body.mesh, puffed, np.full(len(labels), GLOVE, np.uint8), glove, hand, bias=0.03))
            keep &= ~hand
        self.layers.append(Layer(body.mesh, points, labels, material, keep))

    # -- head

    def _head(self):
        rng, wardrobe = self.rng, self.wardrobe
        if wardrobe["eyes"] and wardrobe.eyes:
            eye = wardrobe.eyes[rng.integers(len(wardrobe.eyes))]
            self.wear(wardrobe["eyes"][0], FACE, _rendered.Material(eye, shine=0.4, gloss=80.0), bias=0.0)
        tone = complexion.hair_tone(rng, self.person)
        if brows := wardrobe["brow"]:
            brow = brows[rng.integers(len(brows))]
            self.wear(brow, FACE, complexion.strands(rng, brow, tone * 0.6), bias=0.05)
        bald = not self.female and not self.person.child and rng.random() < 0.1
        if not bald and (hair := self.pick("hair", 0.93)):
            self.wear(hair, HAIR, complexion.strands(rng, hair, tone), bias=0.08)
        if not self.female and not self.person.child and rng.random() < 0.3:
            self.layers.append(complexion.beard(rng, self.posed, tone, self.speckles))
        if rng.random() < 0.17:
            hats = wardrobe["hat"]
            if hats and rng.random() < 0.35:
                hat = hats[rng.integers(len(hats))]
                self.wear(hat, accessories.HAT, self.cloth(hat, self.fabrics.draw_dye(rng, plain=0.85)), bias=0.45)
            else:
                self.layers += accessories.cap(rng, self.posed, self.fabrics)
        if rng.random() < 0.09:
            self.layers += accessories.glasses(rng, self.posed, self.fabrics)
        if rng.random() < 0.07:
            self.layers += accessories.scarf(rng, self.posed, self.fabrics)


def _turned_hue(rng) -> np.ndarray:
    """A color matrix [3, 4] that turns hues by some degrees, and changes saturation and brightness."""
    gray = np.full((3, 3), 1 / 3)
    angle = rng.normal(0, 1.2)
    k = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turned = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    matrix = (gray + turned @ (np.eye(3) - gray) * rng.uniform(0.4, 1.5)) * rng.uniform(0.6, 1.5)
    return np.hstack([matrix, np.zeros((3, 1))]).astype(np.float32)


def _suit_tint(rng) -> np.ndarray:
    """Tints what is dark: a constant is added and the light end kept."""
    color = draw_color(rng) * rng.uniform(0.1, 0.7)
    matrix = np.eye(3) * (1 - 0.6 * color)
    return np.hstack([matrix, color[:, None]]).astype(np.float32)
