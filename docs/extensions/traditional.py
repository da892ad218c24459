"""The Simplified character of each Traditional one in which the guide could be asked for: for the search, by OpenCC's tables."""

import opencc

HAN = range(0x3400, 0xA000)


def simplified(text: str) -> dict[str, str]:
    """{"詢": "询", …}: of all Han characters, those whose Simplified form the text has."""
    characters, here = [chr(code) for code in HAN], set(text)
    # One to a line, since beside each other they would be read as words.
    forms = opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n")
    return {each: form for each, form in zip(characters, forms, strict=True) if form != each and form in here}
