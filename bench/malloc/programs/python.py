# What scripts do: objects, dictionaries, strings, text in and out of JSON. PYTHONMALLOC=malloc has
# each object come from malloc.
import json


class Account:
    def __init__(self, number, name):
        self.number = number
        self.name = name
        self.entries = []

    def balance(self):
        return sum(entry["amount"] for entry in self.entries)


def main():
    state = 1
    accounts = {}
    for number in range(60000):
        state = (state * 1103515245 + 12345) % 2**31
        key = f"account-{state % 5000}"
        account = accounts.setdefault(key, Account(number, key.title()))
        entry = {"day": number % 365, "amount": state % 1000, "text": f"entry {number}"}
        account.entries.append(entry)
    for _ in range(2):
        text = json.dumps([[each.name, each.entries] for each in accounts.values()])
        copied = json.loads(text)
    words = {}
    for name, entries in copied:
        for entry in entries:
            for word in entry["text"].split():
                words.setdefault(word, []).append(name)
    by_balance = sorted(accounts.values(), key=lambda each: (each.balance(), each.name))
    print(len(words), by_balance[0].name, by_balance[-1].balance(), len(text))


main()
