from runtime.families.page import markdown

print(markdown(), end="")
