"""Text written for this project, so that the default real-text environments need nothing fetched.

Words and punctuation marks are separated by spaces, one token each to the word tokenizer.
"""

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

COMMON: tuple[str, ...] = tuple(
    (
        "a an and are as at but by for from had has have he her his i in is it its me my not of on or our she so "
        "that the their them there they this to us very was we were who will with you"
    ).split()
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

WORDS: tuple[str, ...] = (*COMMON, *f"{_NEUTRAL} {_POSITIVE} {_NEGATIVE}".split())

KEYWORDS: tuple[str, ...] = (  # words that one plain sentence can hold
    "dog ball park run child",
    "river boat rope wind morning",
    "cook soup pot onion kitchen",
    "teacher class chalk board question",
    "train platform ticket bag wait",
    "farmer field tractor seed rain",
    "cat roof ladder neighbor night",
    "baker oven bread flour dawn",
    "doctor nurse patient bed smile",
    "piano student song practice evening",
    "hammer nail wood shelf wall",
    "snow hill sled scarf winter",
    "map compass forest path hiker",
    "candle cake friend sing birthday",
    "fisherman net lake fish sunrise",
    "painter brush canvas light window",
    "bus driver street stop umbrella",
    "gardener rose water hat summer",
    "tailor thread needle coat button",
    "library shelf reader quiet book",
    "goat fence mountain grass bell",
    "sailor harbor storm flag captain",
    "market apple basket coin price",
    "telescope star roof astronomer sky",
    "bicycle wheel road bridge repair",
    "mother letter stamp post son",
    "bee flower honey jar field",
    "carpenter table chair saw garage",
    "tent fire blanket camp story",
    "horse rider stable brush hay",
    "clock tower square noon crowd",
    "mechanic engine oil tool truck",
)

LINKING: tuple[str, ...] = (  # what joins the keywords to sentences
    *COMMON,
    *(
        ". , after before near over under through while until when then new old small long some two one takes took "
        "puts put sees saw finds found holds held makes made brings brought buys bought walks walked keeps kept "
        "works sits sat gives gave wants wanted looks looked goes went stands stood carries carried"
    ).split(),
)

OPENINGS: tuple[str, ...] = (
    "the water in the river",
    "a seed in the ground",
    "the moon at night",
    "the wind near the sea",
    "a bird in the tree",
    "the bones of the hand",
    "the heat of the sun",
    "the snow on the hill",
    "the heart of a horse",
    "the price of bread",
    "a law of the state",
    "the road to the town",
    "the work of a judge",
    "the vote of the people",
    "the sound of a bell",
    "the light of a star",
    "the bees in the field",
    "a map of the land",
    "the salt in the sea",
    "the smoke from a fire",
    "the roots of a tree",
    "the wheels of a train",
    "the milk of a goat",
    "the clock on the wall",
    "the ice on the lake",
    "the fish in the pond",
    "the rain in the spring",
    "the rules of a game",
)

LEVELED: tuple[str, ...] = (  # short words, then words of several syllables
    *COMMON,
    *(
        ". , it's all can do does each give go goes good grow grows help keep let long look make makes more move "
        "moves much need new old one see some take tells then these those warm way when where why year"
    ).split(),
    *(
        "about after because begin between carry every follow important into many often other over people under "
        "water additional administration agricultural approximately atmospheric characteristic circumstances "
        "communication community considerable consequently continuously contribution development differentiate "
        "distribution economic electricity environment essentially evaporation evidence explanation fundamental "
        "generally government historical identify immediately independent individual influences international "
        "investigation measurement mechanism necessary observation organization particular population "
        "predominantly principle probability quantity relatively representative responsible scientific "
        "significant surrounding technology temperature traditional understanding variation"
    ).split(),
)

ARTICLES: tuple[tuple[str, str], ...] = (  # a text and its summary
    (
        "the town council met on monday evening . after two hours of talk it voted to close the old bridge for "
        "repairs . drivers will use the north road until spring .",
        "the council will close the old bridge until spring",
    ),
    (
        "a farmer near the lake lost nine sheep last week . tracks in the snow led to the forest . the rangers now "
        "believe that a wolf has come back to the valley .",
        "a wolf may have come back and killed sheep",
    ),
    (
        "the school library was nearly empty a year ago . then parents began to give books from home . today the "
        "shelves are full and children read there every afternoon .",
        "gifts from parents filled the school library with books",
    ),
    (
        "the night train left the station forty minutes late . a tree had fallen on the line in the storm . nobody "
        "was hurt , and workers moved the tree before midnight .",
        "a fallen tree made the night train late",
    ),
    (
        "maria bakes bread in a small shop by the harbor . she starts work at three in the morning . by noon every "
        "loaf is sold , so she plans to rent a larger shop .",
        "maria sells all her bread and plans a larger shop",
    ),
    (
        "the museum bought a clock that was made three hundred years ago . it had stood in a barn under an old "
        "blanket . visitors can see the clock from friday on .",
        "the museum will show a very old clock from friday",
    ),
    (
        "the hospital opened a new garden for its patients . nurses say that people who walk there sleep better . "
        "the trees and benches were paid for by a local firm .",
        "a new hospital garden helps patients sleep better",
    ),
    (
        "for years the beach was covered with plastic . last summer two students asked their neighbors to help . "
        "now a group of sixty cleans the sand every sunday .",
        "two students began a group that cleans the beach",
    ),
    (
        "the home team was two goals behind at the break . a young player came on and scored three times . it was "
        "his first game for the club , and the crowd sang his name .",
        "a young player scored three goals in his first game",
    ),
    (
        "the river rose fast after a week of rain . families in the low streets carried their chairs upstairs . "
        "by tuesday the water had gone down and the shops were open again .",
        "the river flooded low streets but went down by tuesday",
    ),
    (
        "an old man walked into the police station with a bag of coins . he had found it under a seat in the bus . "
        "the owner , a street musician , cried when she got it back .",
        "an old man returned a bag of coins to a musician",
    ),
    (
        "the city will plant five thousand trees this winter . most will stand in streets that have no shade . "
        "officials hope that summers will then be cooler .",
        "the city plants five thousand trees for cooler summers",
    ),
    (
        "the bus company has bought twelve electric buses . they are quiet and need no fuel . riders like them , "
        "but in cold weather they must be charged twice a day .",
        "new electric buses are quiet but need more charging in cold weather",
    ),
    (
        "our cat vanished in may . we put up signs and asked all the neighbors . in october she walked into the "
        "kitchen , fat and calm , as if nothing had happened .",
        "our lost cat came home after five months",
    ),
    (
        "scientists put cameras in the forest to count deer . the cameras also filmed a rare owl . the bird had "
        "not been seen in the region for thirty years .",
        "cameras in the forest filmed a rare owl",
    ),
    (
        "the price of coffee has doubled since last year . dry weather in the south hurt the harvest . small cafes "
        "say that they must ask more for a cup .",
        "dry weather doubled the price of coffee",
    ),
    (
        "a boy of ten found a large bone by the creek . his teacher sent a photograph to the university . experts "
        "say it belonged to a mammoth .",
        "a boy found the bone of a mammoth",
    ),
    (
        "the theater roof leaked on opening night . actors and guests moved into the hall next door . the play "
        "went on without lights or scenery , and people clapped for ten minutes .",
        "the play went on next door after the roof leaked",
    ),
    (
        "the island had one doctor , and she retired in june . for months no one wanted her post . last week a "
        "young couple , both doctors , arrived on the ferry .",
        "two young doctors came to an island that had none",
    ),
    (
        "the company wanted to build a factory beside the lake . hundreds of people wrote letters against it . the "
        "mayor has now offered land near the airport instead .",
        "after protests the factory may move from the lake to the airport",
    ),
    (
        "a thief took a painting from the gallery at night . he did not know that it was a copy . the real one was "
        "being cleaned in another city .",
        "a thief stole a copy of a painting",
    ),
    (
        "the village shop was going to close . forty families each paid a little money and bought it together . "
        "they take turns behind the counter , and the shop earns a small profit .",
        "families bought the village shop together and saved it",
    ),
    (
        "the phone network failed on thursday morning . many shops could take no cards and asked for cash . "
        "engineers found a broken cable under a building site .",
        "a broken cable stopped the phone network on thursday",
    ),
    (
        "the choir lost its singing room in a fire . a car dealer lent the singers his hall . now they practice "
        "between the cars , and some buyers have joined them .",
        "the choir practices in a car hall after a fire",
    ),
)

PLAIN: tuple[str, ...] = (
    "i want to know the price",
    "you must close the window",
    "we need help with the boxes",
    "give me the key to the room",
    "i did not read your letter",
    "the train will come at noon",
    "send the books to my house",
    "i do not agree with you",
    "my brother is at the door",
    "you should wait for the doctor",
    "we will meet near the bridge",
    "the soup is cold",
    "tell your friend about the game",
    "i lost my coat at the station",
    "bring two chairs to the garden",
    "the work is not finished",
    "he does not know the answer",
    "i can come on friday",
    "show me the way to the market",
    "the children are in the kitchen",
    "we do not have your order",
    "she was ill last week",
    "you are late again",
    "the lamp in the hall is broken",
    "i must go home now",
    "they sold the farm last year",
    "call me before dinner",
    "the teacher wants to see you",
    "do not touch the glass",
    "our team won the match",
    "i forgot the name of the street",
    "put the bread on the table",
)

STYLES: dict[str, tuple[str, ...]] = {  # words that mark a style, none of them in two
    name: tuple(words.split())
    for name, words in {
        "formal": "accordingly additionally assistance concerning consequently furthermore hereby inform inquire "
        "moreover nevertheless obtain regarding request require respectfully sincerely therefore thus whereas",
        "polite": "afraid appreciate beg bother could delighted excuse forgive glad grateful kind kindly may might "
        "pardon please pleasure sorry thank welcome would",
        "archaic": "alas behold betwixt doth ere forsooth hath henceforth hither methinks nay oft prithee quoth "
        "shalt thee thine thither thou thy unto verily whence wherefore",
        "casual": "awesome bro bucks buddy cool dude folks gonna gotta guess guys hey kinda lemme nah nope okay "
        "stuff sure totally wanna yeah yep",
    }.items()
}
