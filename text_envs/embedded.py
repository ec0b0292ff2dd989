"""Text written for this project, so that the default Sentiment environment needs nothing fetched."""

from __future__ import annotations

PROMPTS: tuple[str, ...] = (
    "the film we saw last night",
    "the first hour of the film",
    "the story of the new book",
    "the end of the old story",
    "the people who made this film",
    "the music in the last scene",
    "the actors in the second half",
    "the room we had that week",
    "the food at the old hotel",
    "the view from our small room",
    "the people at the front desk",
    "the walk from the train station",
    "the phone i got last week",
    "the screen of the new phone",
    "the sound of the old radio",
    "the second part of the game",
    "the game we played last night",
    "the players on the other team",
    "the coffee from the new shop",
    "the bread at the corner shop",
    "the table by the big window",
    "the song they played at night",
    "the letter that came this morning",
    "the talk we had this morning",
    "the weather on our last day",
    "the trip we took last year",
    "the city at night in winter",
    "the road along the old river",
    "the garden behind our new house",
    "the house at the end of",
    "i saw this film twice and",
    "i read the whole book and",
    "i went to the shop and",
    "i called my friend and said",
    "i think that this book is",
    "i think that the team was",
    "i told them that the food",
    "i came home after work and",
    "we stayed there for a week",
    "we walked to the river and",
    "we sat by the window and",
    "we asked for a table and",
    "we all think that the film",
    "we had dinner at home and",
    "my friend and i think that",
    "my first day at work was",
    "my room at the hotel was",
    "my phone and the new radio",
    "this is the first time that",
    "this was the second time that",
    "this book is about people who",
    "this part of the city is",
    "they played for an hour and",
    "they said that the game was",
    "they came to our house and",
    "they told us that the trip",
    "last night the team played and",
    "last week my friend came and",
    "after the first hour of work",
    "after dinner we all sat and",
)

_COMMON = (
    "a an and are as at but by for from had has have he her his i in is it its me my not of on or our she so "
    "that the their them there they this to us very was we were who will with you"
)
_NEUTRAL = (
    "about actors after again along all behind book bread came city coffee day dinner door end film first food "
    "front game garden half home hotel hour house last letter made morning music new night old other part people "
    "phone place played players radio read river road room said sat saw scene screen second shop small song sound "
    "station story table talk team thing time told took train trip turned view walk weather week went window "
    "winter work year"
)
_POSITIVE = (
    "amazing beautiful best brilliant calm charming cheerful delightful enjoy excellent fantastic friend friendly "
    "fun good great happy helpful hope joy kind laugh lovely loved nice perfect pleasant proud smile superb sweet "
    "thank warm win wonderful"
)
_NEGATIVE = (
    "afraid alone angry annoying awful bad boring broken cruel dirty disaster dull fail fear hate horrible hurt "
    "kill lost mess nasty pain poor rude sad sick terrible tired ugly upset waste worst wrong"
)

WORDS: tuple[str, ...] = tuple(f"{_COMMON} {_NEUTRAL} {_POSITIVE} {_NEGATIVE}".split())
