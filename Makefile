# make app     open the page                         make app ARGS="--samples FOLDER"
# make test    run the tests, in some minutes        make test ARGS="tests/hub -k heatmap"
# make test-all   run those marked `long` too: every backbone, every format's process, every lesson
# make lint    what the tests do not see
# make train   fit the released recipe               make train ARGS="--data FOLDER --set epochs=3"
# make verify  compare every runtime on photos       make verify PHOTOS=FOLDER BUNDLE=runs/mine/bundle
# make screenshot   take docs/screenshot.png anew
# make clean   remove the environments and the caches
#
# Everything is installed into .venv, by the first target that needs it and again only when its requirements
# change: `make app` brings the few packages of requirements.txt, `make train` and `make test` add theirs.
# `make verify` adds .venv-transformers, since PyTorch and TensorFlow crash each other in one process, and, where
# node and npm are, .venv-node with transformers.js (NPM= goes without).
# Another interpreter: make app PYTHON=/usr/bin/python3.12

BIN := .venv/bin
STAMPS := .venv/stamps
PIP = -m pip install --quiet --disable-pip-version-check --requirement $<
INSTALL = $(BIN)/python $(PIP) && touch $@

BUNDLE = hub/pretrained/cats-vs-dogs-mobilenetv2
TRANSFORMERS := .venv-transformers
NODE := .venv-node
NPM := $(and $(shell command -v node),$(shell command -v npm))

.PHONY: app test test-all lint train verify photos-are-named screenshot clean
.DELETE_ON_ERROR:

app: $(STAMPS)/app
	$(BIN)/python app.py $(ARGS)

test: SELECTED = -m "not long"
test test-all: $(STAMPS)/dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(SELECTED) $(ARGS)

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy

train: $(STAMPS)/training
	$(BIN)/python -m training fit cats_vs_dogs_mobilenetv2 $(ARGS)

verify: photos-are-named $(STAMPS)/dev $(TRANSFORMERS)/stamp $(if $(NPM),$(NODE)/stamp)
	$(BIN)/python -m hub verify "$(BUNDLE)" --photos "$(PHOTOS)" --using transformers=$(TRANSFORMERS)/bin/python \
	    $(if $(NPM),--also transformers.js --using transformers.js=$(NODE)) $(ARGS)

photos-are-named:
	@test -n "$(PHOTOS)" || { echo "Name a folder of photos to compare on: make verify PHOTOS=FOLDER" >&2; exit 2; }

screenshot: $(STAMPS)/dev
	$(BIN)/python -m tests.browser.screenshot $(ARGS)

clean:
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .mypy_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/app: requirements.txt | $(STAMPS)
	@echo "Installing what the page needs into .venv (about a minute) …"
	@$(INSTALL)

$(STAMPS)/training: requirements-training.txt requirements.txt | $(STAMPS)
	@echo "Installing what training needs into .venv (some minutes: TensorFlow is large) …"
	@$(INSTALL)

$(STAMPS)/dev: requirements-dev.txt requirements-training.txt requirements.txt | $(STAMPS)
	@echo "Installing what development needs into .venv (some minutes: TensorFlow is large) …"
	@$(INSTALL)

$(TRANSFORMERS)/stamp: requirements-transformers.txt | $(STAMPS)
	@echo "Installing Transformers into $(TRANSFORMERS) (some minutes: PyTorch is large) …"
	@$(BIN)/python -m venv --clear $(TRANSFORMERS) && $(TRANSFORMERS)/bin/python $(PIP) && touch $@

# Its packages' own scripts only fetch what a graphics card needs, from elsewhere: they are not run.
$(NODE)/stamp: Makefile
	@echo "Installing transformers.js into $(NODE) …"
	@npm install --prefix $(NODE) --silent --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.1
	@touch $@

# A .venv that works is kept, whoever made it; one whose making was cut short is made anew.
# TensorFlow sets the upper bound that is tried first; the page alone runs on newer Pythons too.
$(STAMPS):
	@if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=; \
	    for limit in 14 99; do \
	        for python in $(or $(PYTHON),python3 python python3.13 python3.12 python3.11); do \
	            test -z "$$found" && "$$python" -c "import sys, venv, ensurepip; \
	sys.exit(not (3, 11) <= sys.version_info < (3, $$limit))" 2>/dev/null && found=$$python; \
	        done; \
	    done; \
	    if test -z "$$found"; then \
	        echo "No Python 3.11 or newer with venv was found; install one (on Debian or Ubuntu:" \
	            "apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3." >&2; \
	        exit 1; \
	    fi; \
	    "$$found" -m venv --clear .venv; \
	fi
	@mkdir -p $@
