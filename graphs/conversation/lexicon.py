"""The sentences that are understood without an LLM, each as a pattern over the whole of it, and what it means.

The parts of a sentence are groups: `count`, `other`, `epochs`, `rounds` are numbers in digits or words, `target` a
reward, also in per cent, `text` words of the user's own. A word of a command whose group is empty is left out.
"""

import re

COUNTS = {
    "a": 1, "an": 1, "one": 1, "once": 1, "two": 2, "twice": 2, "couple": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12,
}  # fmt: skip

N = rf"(?:\d+|{'|'.join(COUNTS)})"
COUNT, EPOCHS, ROUNDS = rf"(?P<count>{N})", rf"(?P<epochs>{N})(?: more)? epochs?", rf"(?P<rounds>{N}) rounds?"
NAMES = (
    "plan|approve|reject|edit|train|run|undo|rollback|set|stop|pause|go|why|diff|prompt|try|status|failures|compare|"
    "search|finish|help|quit"
)  # of the commands
MINUTES = r"(?P<minutes>\d+) min(?:ute)?s?"
YES = (
    r"y|yes|yep|yeah|yup|ok|okay|sure|fine|right|good|agreed|i agree|approved?|proceed|go|go (?:ahead|for it)|"
    r"yes,? (?:do it|do that|go ahead|please)|ok(?:ay)?,? (?:do it|go ahead|go)|do (?:it|that|so)|"
    r"(?:that )?(?:sounds|looks) (?:good|fine|right)(?: to me)?(?:,? (?:so )?(?:go ahead|do (?:it|that|so)))?|"
    r"approve (?:it|that|the plan)|do what you plan(?:ned)?|"
    r"(?:(?:yes|ok|okay|sure|fine|right|good),? )?(?:go ahead|proceed) with (?:it|that|this|the plan)"
)
NO = (
    r"n|no|nope|nah|never|don't|do not|not (?:that|this)|no,? (?:thanks|thank you)|reject(?: it| that)?|"
    r"don't do (?:it|that)"
)
ROUND = r"(?:the )?(?:round|step)?\s*#?\s?"
THAT = r"(?: (?:it|that|this|so))?"
PROMPT = r"(?:the )?(?:system )?(?:prompt|words|text|instructions?|wording)"
SHOW = r"(?:(?:show|see|print|give|tell)(?: me)? )"
TRAIN = r"(?:train|tune|fine-?tune)(?: the| its)?(?: model| weights| adapter| lora)?(?: (?:it|more|longer|again))?"
ROWS = r"(?:(?:with|on|using) (?:the )?(?P<rows>original|refined|both)(?: kinds of)?(?: rows| data| examples)?)"
BARE = r"(?:without (?:the |its |any )?(?:few[- ]shot )?(?:examples|demonstrations))"
ABOUT = r"(?:a |the )?(?:reward|score|target|goal|accuracy)"
WITHIN = r"(?:,? (?:in|within|and|with|by)(?: at most| no more than| up to)? )"
MOST = r"(?:(?:use |take )?(?:at most|no more than|up to)|(?:set )?(?:the )?(?:budget|limit)(?: (?:to|of|is))?) "
WANT = r"(?:i want|i need|aim (?:for|at)|get|reach|go for|get it to|bring it to|make it reach|the goal is|set|change)"
GOAL = (
    rf"(?:{WANT}(?: {ABOUT}| it)?(?: (?:to|of|at|is|=))?|{ABOUT}(?: (?:to|of|at|is|=))?) "
    rf"(?P<target>\d*\.?\d+ ?%?)(?: {ABOUT})?(?: right| correct)?"
)
ASK = r"(?:try|ask it|ask the model|test(?: it)?(?: with| on)?|what does it (?:say|answer) to)"
TELL = (
    rf"(?:the prompt should say|{PROMPT} should be|use the (?:instruction|prompt)|add the instruction|"
    r"say to it)"
)
TOLD = r"(?:tell|instruct|ask) (?:it|the model) to"

MEANINGS: dict[str, tuple[str, ...]] = {
    "/approve": (YES,),
    "/reject": (NO, r"something else", r"(?:try )?another plan", r"plan (?:again|anew|something else)"),
    "/reject {text}": (r"(?P<text>(?:don't|do not|no|not) (?:train|training|edit|editing|rewrite|stop)(?: it)?)",),
    "/why": (
        rf"why(?: not)?{THAT}\??", r"how come\??", rf"explain{THAT}\??", r"what(?:'s| is) the reason\??",
        r"(?:the )?reasons?\??", rf"why did you do{THAT}\??",
        r"why (?:was|did you (?:keep|take back)) (?:it|that|this)(?: (?:kept|taken back|undone))?\??",
        r"what (?:was|has it|has been|did it) (?:forgotten|forget)\??",
        rf"why (?:do|would) you (?:want|plan|propose|suggest|begin with|start with)(?: to do)?{THAT}\??",
    ),
    "/why {count}": (
        rf"(?:why|explain|tell me about|what about|what happened in|how was) {ROUND}{COUNT}\??",
        rf"what did (?:you do|it bring) in {ROUND}{COUNT}\??",
        rf"why (?:was|did you (?:take back|keep|do)) {ROUND}{COUNT}(?: (?:taken back|kept))?\??",
    ),
    "/plan": (
        rf"{SHOW}?(?:the )?plan\??", r"(?:and |what )?next\??", r"what(?:'s| is) (?:next|the plan)\??",
        r"(?:what )?(?:would|will|do) you (?:do|plan|propose|suggest)(?: (?:next|now|first))*\??",
        r"what (?:should|do) (?:i|we) do(?: (?:next|now|first))*\??", r"(?:and now|now what)\??",
        r"what are you (?:going|planning) to do(?: next)?\??",
    ),
    "/stop": (
        r"(?:stop|cancel|abort|halt|interrupt)(?: (?:it|that|this|training|the training|the step|the edit))?",
        r"break(?: it)? off", r"stop what you(?:'re| are) doing",
    ),
    "/pause": (r"pause", r"hold(?: on)?", r"wait(?: a (?:bit|moment|minute))?"),
    "/go": (r"continue", r"resume", r"go on", r"carry on", r"keep going"),
    "/undo": (
        rf"undo{THAT}", r"undo the last (?:round|step|change)", rf"(?:take|revert){THAT} back", rf"revert{THAT}",
        r"(?:roll|go) back", r"back", r"(?:that was )?(?:a )?mistake",
    ),
    "/rollback 0": (
        r"(?:go |roll ?|get )?back to (?:the )?(?:start|beginning|baseline|seed(?: prompt)?|original(?: prompt)?)",
        r"start over", r"undo (?:it all|everything|all)",
    ),
    "/rollback {count}": (
        rf"(?:go |roll ?|get )?back to {ROUND}{COUNT}", rf"(?:rollback|revert|return)(?: to)? {ROUND}{COUNT}",
        rf"undo (?:everything|all) (?:after|since) {ROUND}{COUNT}",
    ),
    "/status": (
        r"status\??", r"how(?: is|'s) (?:it|that) going\??", r"how are we doing\??", r"where are we\??",
        rf"{SHOW}?(?:the )?progress\??",
        r"(?:what(?:'s| is) )?(?:the )?(?:score|reward|budget|cost|state|target|goal)\??",
        r"how (?:far|good|well) (?:are (?:we|you)|is it|does it do)(?: now)?\??",
        r"(?:how much|what)(?: \w+)? is left\??",
        r"how (?:much|many \w+)(?: \w+)? (?:is|are|do we have) left\??", r"what (?:is it|are you) doing(?: now)?\??",
        r"how (?:much|long)(?: \w+)* (?:cost|take|taken|spent|so far)\??", r"what (?:has|did) it cost\??",
    ),
    "/help": (
        r"help(?: me| us)?(?:,? please)?", r"\?", r"commands\??", r"what can (?:i|you) (?:do|say)\??",
        r"how does this work\??",
    ),
    "/help {about}": (rf"help (?:on |about |with )?/?(?P<about>{NAMES})",),
    "/quit": (
        r"quit", r"exit", r"bye", r"good ?bye", r"leave", r"see you", r"that(?:'s| is) all(?: for (?:now|today))?",
    ),
    "/finish": (
        r"finish(?: (?:it|up|here|the run))?", r"end(?: (?:it|here|the run))?", r"(?:(?:i'm|we're|i am|we are) )?done",
        r"open the test(?: rows| set)?", r"stop (?:the run|here)", r"(?:that(?:'s| is) )?good enough", r"run the test",
        r"wrap (?:it )?up",
    ),
    "/diff": (
        r"diff\??", r"what(?:'s| has| have)?(?: you)? changed\??", r"what is different\??",
        r"what did (?:you|it) change\??",
        rf"{SHOW}(?:the |what )?(?:changes?|changed|difference|diff)",
    ),
    "/prompt": (
        rf"(?:{SHOW}|what(?:'s| is) ){PROMPT}(?: (?:like )?now)?\??", r"the prompt\??",
        r"what does the prompt say(?: now)?\??",
    ),
    "/failures": (
        r"(?:what|which rows?)(?: still)? fails?\??", r"what(?:'s| is) (?:wrong|missing|lacking)\??",
        rf"{SHOW}?(?:the )?(?:failures|mistakes|failing rows|errors)\??", r"what does it (?:get wrong|lack)\??",
        r"where does it fail\??",
    ),
    "/train epochs={epochs} rows={rows}": (
        rf"{TRAIN}(?: (?:with|on|for|using))?(?: {EPOCHS})?(?:,? {ROWS})?",
        rf"{TRAIN},? {ROWS}(?: (?:for|with) {EPOCHS})?",
        EPOCHS,
    ),
    "/train epochs={epochs} rows={rows} bare=true": (
        rf"{TRAIN}(?: (?:with|on|for|using))?(?: {EPOCHS})?(?:,? {ROWS})?,? {BARE}",
    ),
    "/edit": (
        rf"(?:edit|rewrite|improve|change|reword|rephrase|better|fix) (?:{PROMPT}|it)", r"edit", r"rewrite",
        r"(?:another|an?) edit", r"try (?:another|a better) prompt", r"work on the prompt",
    ),
    "/edit {text}": (
        rf"(?:add|put|write)(?: to {PROMPT})?:? (?P<text>[\"“'].+[\"”'])(?: (?:to|in|into) {PROMPT})?",
        rf"{TELL}:? (?P<text>.+)",
    ),
    "/edit {wish}": (rf"{TOLD}:? (?P<wish>.+)",),
    "/run {count}": (
        rf"(?:run|do|make|work|go on)(?: for)? {COUNT} rounds?(?: (?:alone|by yourself|without asking))?",
    ),
    "/run +{count}": (
        rf"(?:(?:run|do|give it|add|make|go on for) )?{COUNT} (?:more|further) rounds?",
        rf"(?:(?:run|do|give it|add|make|go on for) )?another {COUNT} rounds?",
        rf"extend(?: it)?(?: by)? {COUNT}(?: more)?(?: rounds?)?",
    ),
    "/run +1": (r"another(?: round)?", r"one more", r"again", r"once more", r"one more time"),
    "/set target={target} rounds={rounds} minutes={minutes}": (
        rf"{GOAL}{WITHIN}{ROUNDS}{WITHIN}{MINUTES}", rf"{GOAL}{WITHIN}{ROUNDS}", rf"{GOAL}{WITHIN}{MINUTES}", GOAL,
        rf"{MOST}{ROUNDS}", rf"{MOST}{MINUTES}",
    ),
    "/set usd={usd}": (
        r"(?:spend )?(?:at most|no more than|up to) (?P<usd>\d+(?:\.\d+)?) (?:usd|dollars?)",
        r"(?:spend )?(?:at most|no more than|up to) \$ ?(?P<usd>\d+(?:\.\d+)?)",
    ),
    "/try {text}": (
        rf"{ASK}:? (?P<text>[\"“'].+[\"”'])", r"(?:ask it|ask the model|ask)(?: about)?:? (?P<text>.+\?)",
        r"try:? (?P<text>.+\?)", r"what does it (?:say|answer) to:? (?P<text>.+)",
    ),
    "/compare {count} {other}": (
        rf"compare (?:{ROUND}|rounds ){COUNT} (?:and|with|to) {ROUND}(?P<other>{N})\??",
    ),
    "/search {text}": (
        r"(?:search|find|look for)(?: for)?(?: earlier| old| other)? prompts?(?: (?:about|on|for|like) (?P<text>.+))?",
    ),
}  # fmt: skip
PHRASES = [(re.compile(pattern, re.I), command) for command, patterns in MEANINGS.items() for pattern in patterns]
