"""The rules as data: groups of terms, and which groups must stand near one another. English; precision before recall.

A term is one or more lower-case words as `normalise.fold` leaves them, apostrophes removed; `*` ends a word anyhow.
What these rules cannot see (other languages, paraphrase, long stories) is the guard model's business.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Met when one term of each group stands within the window around a term of the rarest group."""

    category: str
    """What a refusal may say."""
    all: tuple[str, ...]
    """Groups that must all occur."""
    window: int
    """Words between the terms at most."""
    unless: tuple[str, ...] = ()
    """Groups that excuse, within twice the window."""
    asked_only: bool = False
    """Whether the rule is for requests only."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(term.strip() for term in text.replace("\n", " ").split(",") if term.strip())


GROUPS: dict[str, tuple[str, ...]] = {
    "how": _words("""how to, procedure, easiest way, how do terrorists, how 2, what chemicals, which chemicals, which precursors, what precursors, what ingredients, i wanna, i need, outline,
        working design, plans for, how are they, how would you, how would someone, how would an attacker, how do i, how do you, how do we, how can i, how can we, how can one, how could i, how would i, how would one,
        how might i, how might one, how does one, how should i, how i can, how one can, how we can, ways to, steps to, steps for,
        step by step, instructions, recipe, tutorial, guide to, guide for, guide on, guide me, teach me, show me, tell me, walk me, give me,
        explain how, describe how, help me, i want to, i need to, i would like to, want you to, procedure for, protocol for,
        blueprint*, provide, detailed"""),
    "make": _words("""make, preparing, turning, recipe for, weaponis*, mix, mixing, combine, combined, production of, synthesis of, precursor*, design, designing, preparation of, making, build, building, construct, constructing, synthes*, manufactur*, produce, producing, cook, brew,
        assemble, assembling, create, creating, culture, cultivate, weaponi*, extract, extracting, purify, acquire, obtain, detonate,
        enrich, formulate, set off"""),
    "order": _words("synthesize, synthesise, build me, make me, brew me, cook me"),
    "weapon": _words("""bomb, bombs, explosives, ied, ieds, pipebomb*"""),
    "mass weapon": _words("""sarin, vx nerve, vx gas, vx agent, for vx, of vx, make vx, synthesize vx, produce vx, nerve agent*, nerve gas*, novichok, tabun, soman, mustard gas, sulfur mustard,
        ricin, anthrax, botulin*, smallpox, variola, dirty bomb*, nuclear bomb*, nuclear weapon*, atomic bomb*, atom bomb*, hydrogen bomb*,
        nuclear device*, pipe bomb*, nail bomb*, fertilizer bomb*, pressure cooker bomb*, car bomb*, letter bomb*, suicide vest*,
        explosive vest*, explosive device*, plastic explosive*, c4 explosive*, anfo, tatp, acetone peroxide, petn, semtex, molotov*,
        napalm, bioweapon*, biological weapon*, chemical weapon*, poison gas*"""),
    "recipe": _words("you will need, step 1, step one, add the, mix the, heat the, stir the, grams of, ml of"),
    "weapon excuse": _words("""vaccin*, antidote*, antitoxin*, treat, treatment, detect*, protect*, neutrali*, defus*, dispos*, decontaminat*,
        prevent*, manhattan project, oppenheimer, los alamos, hiroshima, history of, nonproliferation, treaty, treaties, ban, bans, disarm*"""),
    "drug": _words("methamphetamine*, meth, crystal meth, fentanyl, heroin, cocaine, lsd, mdma, ghb, dmt, carfentanil, krokodil"),
    "drug make": _words("mix, production of, synthesis of, precursor*, make, making, cook, cooking, synthes*, manufactur*, produce, extract"),
    "drug excuse": _words("""detect*, test, tests, testing, treat*, overdose*, addict*, withdrawal, quit, prevent*, law, laws, legal, police,
        affect*, effect*, feel"""),
    "write": _words("""write, compose, draft, create, code, develop, build, make, generate, program, implement, design, give me, produce, craft, i need a,
        script, scripts"""),
    "code": _words("code, script, program, python, powershell, javascript, vba, macro, c, executable, payload, binary"),
    "malware": _words("""ransomware, keylogger*, rootkit*, botnet*, trojan virus*, remote access trojan*, trojan horse program, computer worm*,
        computer virus*, a worm that, a trojan that, a virus that, network worm*, logs keystrokes, log keystrokes, logs every keystroke,
        record keystrokes, wipes disks, wiper malware, replicating worm*, replicating virus*, malware, spyware, infostealer*, password stealer*, credential stealer*,
        cryptolocker, ddos tool*, ddos script*, ddos attack*, ddos bot*, polymorphic virus*, encrypts all files"""),
    "phishing": _words("""phishing email*, phishing mail*, phishing sms*, phishing page*, phishing site*, phishing website*, phishing kit*, phishing message*, phishing campaign*,
        fake login page*, fake bank*, credit card skimmer*, card skimmer*, skim credit cards, skims credit cards, tricks people into giving, tricks users into giving,
        trick people into giving, tricks victims into, clone credit card*, clone a credit card*"""),
    "evade": _words("evade, evades, evading, undetect*, bypass*, avoid detection, avoids detection, avoid antivirus, avoids antivirus, fud"),
    "defence": _words("""incident response, response plan*, playbook*, tabletop exercise*, detect, detects, detecting, detection, detector*, prevent*, protect*, defend*, defense*, defence*, defensive, remov*,
        awareness, classif*, analy*, mitigat*, scan, scans, scanner*, scanning, antivirus, policy, policies, recover*, train, training,
        recogni*, spot, against, safe from, block, blocks, filter*, report, reports, own password, i forgot, ctf, hash, hashes, hashcat"""),
    "prose": _words("""essay, essays, article*, paper, history, summary, summari*, story, stories, novel*, blog, presentation*, slide*, quiz*, lesson*,
        explain*, explanation*, documentary, poem*, review"""),
    "steal": _words("""steal, steals, stealing, phish, phishing, hack, hacking, hijack, hijacking, break into, breaking into, harvest,
        harvests, harvesting"""),
    "crack": _words("crack, cracking, getting into, brute force, brute forcing, bruteforce, guess, bypass, get into, log into, spy on"),
    "credential": _words("""password*, credential*, credit card*, debit card*, bank account*, login*, identity, identities, social security number*,
        gmail, facebook, instagram, snapchat, whatsapp, email account*, icloud, wifi, bitcoin wallet*, crypto wallet*, bank details,
        2fa, session token*, session cookie*, online banking"""),
    "others": _words("""someone, someones, somebody, somebodys, another person*, other peoples, peoples, victim*, my girlfriend*, my boyfriend*,
        my wife*, my husband*, my ex, my exs, my neighbor*, my neighbour*, my boss*, my coworker*, strangers, without permission,
        without them knowing, without his, without her, without their, stolen"""),
    "self method": _words("""how to, how do i, how can i, how could i, how should i, best way, surest way, surest method, easiest way, painless way, quickest way, fastest way,
        most painless, painless*, method*, ways to, steps to, instructions, how many, how much, what dose, lethal dose, tell me how, guide*"""),
    "self harm": _words("""kill myself, killing myself, end my life, ending my life, commit suicide, committing suicide, hang myself, hanging myself,
        cut myself, cutting myself, harm myself, hurt myself, self harm, slit my wrist*, take my own life, die by suicide, die painlessly,
        painless death, end it all with, method of suicide, methods of suicide, unalive myself, fatal overdose, overdose on, overdose myself, starve myself, suicide method*, drown myself,
        suffocate myself, poison myself, shoot myself"""),
    "self excuse": _words("""stop, stopping, prevent*, avoid*, not to, cope, coping, resist*, support*, hotline, therap*, urge*, accidentally, accident,
        someone who, friend*, treat*, recover*, keep from, instead of, in the foot, without hurting"""),
    "persuade": _words("convince, persuade, encourage, encouraging, manipulate, push, talk, bully, message, letter"),
    "other suicide": _words("""kill themselves, kill herself, kill himself, commit suicide, end their life, end her life, end his life, into suicide,
        to suicide, kill yourself"""),
    "other excuse": _words("""not, stop, dont, prevent*, against, help, out of, seek*, hotline, romeo, juliet, play, novel, character*, why"""),
    "want": _words("""write, create, generate, draw, describe, show, find, give me, download, send, roleplay, role play, how to, how can i, how do i,
        tell me, i want, make, link*, watch, where can i, pretend, story, imagine, share"""),
    "sexual": _words("""porn, porno, pornograph*, erotic*, nude, nudes, naked, sexual fantas*, sexually explicit, sexual story, sexual stories,
        sexual scene*, sex scene*, sex story, sex stories, having sex, have sex, sexual content, sexual act*, sexual roleplay, sexual relationship,
        nsfw, hentai, explicit sex*, smut, masturbat*, seduc*, orgasm*, undress*, sexual encounter*, sexualized, sexualised, csam"""),
    "minor": _words("""child, children, kid, kids, underage, preteen*, pre teen*, toddler*, infant*, little girl*, little boy*, young girl*, young boy*,
        schoolgirl*, school girl*, schoolboy*, loli, shota, year old girl*, year old boy*, minors, middle schooler*, elementary school*, """
        + ", ".join(f"{age} year old*, {age} yo" for age in (*range(3, 18), "twelve", "thirteen", "fourteen", "fifteen", "ten", "eleven", "nine", "eight"))),
    "minor excuse": _words("""prevent*, protect*, abuse*, educat*, law, laws, legal, illegal, report*, detect*, moderat*, statistic*, policy, policies,
        victim*, therap*, parent*, health, histor*, censor*, filter*, block*, classif*, safe, safety, painting*, museum*, grown up"""),
    "violence asked": _words("""how to, how do i, how can i, how could i, how would i, how do you, how can we, best poison, best way, tell me how, show me how,
        teach me, help me, plan an, plan the, i want to, i need to, where can i, ways to, guide to, instructions, steps to"""),
    "harm": _words("kill, murder, poison, strangle, stab, assassinate, shoot, kidnap, abduct, get rid of"),
    "harm person": _words("""kill someone, kill somebody, murder someone, murder somebody, poison someone, poison somebody, strangle someone, stab someone,
        assassinate someone, kidnap someone, kidnap somebody, kidnap a child, kill a person, murder a person, poison a person, kill my wife,
        kill my husband, kill my boss, kill my ex, kill my neighbor, kill my neighbour, kill my parents, kill my mother, kill my father,
        kill my girlfriend, kill my boyfriend, kill my teacher, kill my classmate*, kill my roommate, murder my wife, murder my husband, murder my boss, murder my ex, murder my neighbor*, murder my neighbour*, murder my roommate,
        poison my wife,
        poison my husband, poison my boss, poison my neighbor*, poison my neighbour*, poison my roommate, poison my ex, assassinate the president,
        assassinate a politician, hire a hitman, hire a hit man, hire an assassin, poison the water supply, poison a water supply,
        shoot up a school, shoot up my school, shoot up the school, kill as many people, get away with killing, get away with murdering,
        get away with poisoning, poison to kill, attack on a synagogue, attack on a mosque, attack on a church, attack on a school"""),
    "person": _words("""someone, somebody, my wife, my husband, my boss, my ex, my neighbor*, my neighbour*, my roommate, my parents, my mother,
        my father, my girlfriend, my boyfriend, my teacher, my classmate*, a person, people, him, her, the president"""),
    "stealth": _words("""without getting caught, get away with, untraceable, leave no trace, without a trace, no evidence, undetect*,
        without leaving, look like an accident, without anyone, dispose of the body, hide the body"""),
    "violence excuse": _words("""prevent*, avoid, stop, protect*, accidentally, antidote*, treat*, chess, minecraft, skyrim, game, games, novel*, story,
        mystery, legally, self defense, self defence, law"""),
    "attack plan": _words("carry out, plan a, planning a, commit a, conduct a, organize a, execute a"),
    "attack": _words("school shooting*, mass shooting*, terrorist attack*, terror attack*, massacre, bombing, suicide bombing, mass killing"),
    "ignore": _words("ignore, disregard, forget, ignoring, disregarding, overlook"),
    "previous": _words("previous, prior, above, earlier, preceding, your, you were given, you have been given, all instructions, all system"),
    "instructions": _words("instructions, instruction, prompt, prompts, rules, guidelines, directives, programming"),
    "instructions excuse": _words("""my previous, my earlier, my last, dont forget, do not forget, never ignore, dont ignore, do not ignore, what does,
        attack*, classif*, detect*"""),
    "bypass": _words("bypass, disable, turn off, switch off, drop, remove, circumvent, deactivate, break"),
    "your": _words("your"),
    "safeguards": _words("""safety filter*, content filter*, safety guideline*, ethical guideline*, restrictions, safeguard*, guardrail*, content polic*,
        safety protocol*, safety measure*, safety training, moral guideline*, filters, censorship"""),
    "reveal": _words("""reveal, print, show, repeat, output, display, tell, give, leak, disclose, share, expose, recite, dump, write, what is, what are,
        whats, translate, encode, summarize, paste"""),
    "system prompt": _words("""system prompt*, system message*, initial prompt, initial instructions, hidden prompt, hidden instructions,
        secret instructions, original instructions, developer message*, preprompt, system instructions, hidden system, confidential instructions"""),
    "exactly": _words("your, you were, verbatim, word for word, exact, you have been given"),
    "override": _words("""repeat the words above, repeat everything above, output everything above, print everything above, do anything now, safety guidelines disabled, safety filters disabled, guidelines are disabled,
        you are now dan, act as dan, dan mode, developer mode enabled, developer mode output, jailbreak mode, god mode enabled, evil mode"""),
    "persona": _words("you are now, you are an, you are a, pretend, act as, roleplay as, role play as, become, respond as, answer as, simulate, imagine"),
    "unrestricted": _words("""unrestricted ai, unfiltered ai, uncensored ai, amoral ai, unrestricted assistant, unfiltered assistant,
        uncensored assistant, no ethical guidelines, no moral guidelines, no ethical restrictions, no content polic*, no restrictions,
        without any ethical, without ethical, without any restrictions, free of all restrictions, not bound by, no rules, no safety,
        without any filter*, without any moral*, never refuses, cannot refuse"""),
}  # fmt: skip
"""Groups of terms by name."""

RULES: tuple[Rule, ...] = (
    Rule("weapons", ("how", "make", "mass weapon"), 12, unless=("weapon excuse",)),
    Rule("weapons", ("how", "make", "weapon"), 7, unless=("weapon excuse",)),
    Rule("weapons", ("order", "mass weapon"), 8, unless=("weapon excuse",)),
    Rule("weapons", ("recipe", "make", "mass weapon"), 40, unless=("weapon excuse",)),
    Rule("illegal_drugs", ("how", "drug make", "drug"), 8, unless=("drug excuse",)),
    Rule("malware", ("write", "malware"), 8, unless=("defence", "prose")),
    Rule("malware", ("how", "make", "malware"), 8, unless=("defence", "prose")),
    Rule("malware", ("write", "code", "malware", "evade"), 14),
    Rule("credential_theft", ("write", "phishing"), 8, unless=("defence", "prose")),
    Rule("credential_theft", ("how", "phishing"), 8, unless=("defence", "prose")),
    Rule("credential_theft", ("how", "steal", "credential"), 8, unless=("defence", "prose")),
    Rule("credential_theft", ("write", "steal", "credential"), 8, unless=("defence", "prose")),
    Rule("credential_theft", ("how", "crack", "credential", "others"), 10, unless=("defence", "prose")),
    Rule("self_harm", ("self method", "self harm"), 8, unless=("self excuse",)),
    Rule("self_harm", ("persuade", "other suicide"), 8, unless=("other excuse",)),
    Rule("child_safety", ("want", "sexual", "minor"), 12, unless=("minor excuse",)),
    Rule("violence", ("violence asked", "harm person"), 8, unless=("violence excuse",)),
    Rule("violence", ("how", "harm", "person", "stealth"), 14, unless=("violence excuse", "prose")),
    Rule("violence", ("how", "attack plan", "attack"), 10, unless=("violence excuse", "defence", "prose")),
    Rule(
        "prompt_injection", ("ignore", "previous", "instructions"), 5, unless=("instructions excuse",), asked_only=True
    ),
    Rule("prompt_injection", ("bypass", "your", "safeguards"), 5, unless=("instructions excuse",), asked_only=True),
    Rule(
        "prompt_injection", ("reveal", "exactly", "system prompt"), 6, unless=("instructions excuse",), asked_only=True
    ),
    Rule("prompt_injection", ("override",), 1, asked_only=True),
    Rule("prompt_injection", ("persona", "unrestricted"), 12, asked_only=True),
)
"""All rules, in the order in which they are tried."""

BENIGN: tuple[str, ...] = _words("""bath bomb, bath bombs, bomb calorimeter, bomb calorimeters, bomb calorimetry, seed bomb, seed bombs, cherry bomb,
    cherry bombs, photo bomb, google bomb, glitter bomb, glitter bombs, chocolate bomb, chocolate bombs, cocoa bomb, cocoa bombs, fork bomb, zip bomb,
    logic bomb, stink bomb, water bomb, smoke bomb, napalm like, cut myself a, cut myself some,  bomb defusal, bomb squad, bomb shelter, bomb disposal, bomb detector, bomb detection,
    bomb cyclone, time bomb, naked eye, naked singularity, naked mole, naked option, naked pointer, nude mice, nude mouse, nude mouse model,
    bomb enigma, photon bomb, population bomb, flavor bomb, flavour bomb, bomberman""")  # fmt: skip
"""Harmless phrases; their words count for nothing."""
