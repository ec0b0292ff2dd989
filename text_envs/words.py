"""Words for the games, written for this project: common words of five letters, and some things and traits."""

from __future__ import annotations

FIVE_LETTERS: tuple[str, ...] = tuple(
    "about above actor adult agree alarm album alone among angle angry apple arrow awake bacon badge beach bench "
    "berry birth black blend block board bread brick brown brush cabin candy chain chair chalk cheap chess child "
    "civil clean clock cloud coast cover crowd dance diary doubt dozen dream drink early earth eight empty enjoy "
    "equal event faith fence field final flame floor fresh fruit funny ghost giant glass globe grape green guest "
    "habit happy heart honey horse hotel house human image inner issue ivory jelly joint juice knife knock label "
    "large laugh lemon level light lucky lunch magic march metal model month mouse music never night noise north "
    "novel nurse ocean olive onion order other paint panel paper peace phone piano pilot plant quick quiet radio "
    "raise reply river robot round royal salad scale sheep shirt skill sleep smile snake spoon stone storm sugar "
    "table teach thick tiger toast total tower train truth uncle under upper urban value video visit voice waste "
    "water whale wheel white woman world wrist young youth zebra".split()
)

_TRAITS = """
dog alive animal
apple edible sweet round
car large metal
lamp metal electric
eagle alive animal flying
oak alive large
ball round
ship large metal water
bread edible
shark alive animal large water
coin round metal
phone electric
rose alive
duck alive animal flying water
cake edible sweet
plane large metal flying
horse alive animal large
fridge large metal electric
moon large round
kite flying
salmon alive animal edible water
juice edible sweet water
frog alive animal water
drone flying electric
"""

KNOWLEDGE: dict[str, tuple[str, ...]] = {  # a thing -> what is true of it
    thing: tuple(traits) for thing, *traits in map(str.split, _TRAITS.strip().splitlines())
}
