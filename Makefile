# Every verb is one call of the command line; the command line reuses what the same inputs made.
# Values may hold spaces: every use is quoted.
CHECKPOINT  ?= reference/checkpoints/streaming-en.nemo
# streaming-rnnt, offline-tdt, offline-ctc, ..., as the checkpoint itself says; read once, when it is needed.
KIND        ?= $(eval KIND := $$(shell $(NEMOPORT) kind "$(CHECKPOINT)" $(if $(HEAD),--head $(HEAD))))$(KIND)
# The committed speech for that kind.
SPEECH      = $(if $(filter offline-%,$(KIND)),-tdt,$(if $(filter streaming-prompt-%,$(KIND)),-multi))
CORPUS      ?= reference/audio/eval$(SPEECH).jsonl
CALIBRATION ?= reference/audio/calibration$(SPEECH).jsonl
# The cache layout. nemo: NeMo's own caches. kv: projected keys and values, the fast one; its variants are named kv-...
CACHES      ?= $(if $(CONTRACT),$(CONTRACT),nemo)
KV          := $(if $(filter kv,$(CACHES)),kv-)
# onnx, or another format, which has its own precisions: TARGET=openvino PRECISION=int8; see export/targets/.
TARGET      ?= onnx
PRECISION   ?= fp32
# Such as 1120ms/0: a graph for one chunk size, in a build of its own; see export/profile.py.
PROFILE     ?=
# Of a hybrid model: ctc, for a build of its own; the transducer otherwise.
HEAD        ?=
NAME        := $(shell basename "$(CHECKPOINT)" .nemo | tr '@' '-')$(if $(HEAD),-$(HEAD))$(if $(PROFILE),-$(subst /,-,$(PROFILE)))
CHOSEN      = --checkpoint "$(CHECKPOINT)" $(if $(HEAD),--head $(HEAD)) $(if $(PROFILE),--profile "$(PROFILE)")
BUILD       ?= build/$(NAME)
DIST        ?= dist/$(NAME)
# What the model card needs: --license, --language, --base-model ... The committed checkpoints are our own.
OURS        := $(filter reference/checkpoints/%,$(CHECKPOINT))
CARD        ?= $(if $(OURS),--license apache-2.0$(if $(SPEECH),, --language en))
# native; sherpa-onnx; openvino, litert, coreai, coreml; or onnx-asr, for offline models, with SHARDS, such as 1.5G: fp32 again
# in files below that
LAYOUT      ?= native
SHARDS      ?=
# Of `make web`.
PORT        ?= 8000
REPO        ?=

# Variants judged at once. Each holds its weights in memory: a large model on a machine with many cores takes fewer.
JOBS        ?= $(if $(OURS),$(shell nproc 2>/dev/null || echo 1),1)

PYTHON      ?= python3
# litert-torch asks for other versions than NeMo, so it has an environment of its own.
ENVIRONMENT := $(if $(filter litert,$(TARGET)),.venv-litert,.venv)
BIN         := $(ENVIRONMENT)/bin
NEMOPORT    := $(BIN)/nemoport
export OMP_WAIT_POLICY = passive
# Most of a test runs on one thread; the tests of a file share what they build.
PARALLEL    := -n 2 --dist loadfile
test test-all: export OMP_NUM_THREADS = 1

.PHONY: help setup setup-litert demo run gates oracle export fp16 sensitivity validate package verify publish web genai peers test test-all lint bench consumers \
        lock licences audit accuracy reference fuzz mutants docs clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z0-9%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9%-]+):.*## (.*)/  \1\t\2/' | expand -t 26
	@echo "Variables: CACHES=$(CACHES) LAYOUT=$(LAYOUT) PROFILE=$(PROFILE) CHECKPOINT=$(CHECKPOINT) BUILD=$(BUILD)"

setup: $(ENVIRONMENT)/installed ## make .venv with every pinned package

setup-litert: .venv-litert/installed ## make .venv-litert, the same with what converts for LiteRT

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nemoport needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	@echo "Installing the pinned packages (NeMo and torch: about 2 GB, minutes) ..."
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv-litert/installed: pyproject.toml constraints.txt requirements-litert.txt
	$(PYTHON) -m venv .venv-litert
	.venv-litert/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,litert]'
	.venv-litert/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-litert.txt
	touch $@

oracle: setup ## record NeMo's own streaming and offline runs of CHECKPOINT on CORPUS
	$(NEMOPORT) oracle $(CHOSEN) --build "$(BUILD)" --corpus "$(CORPUS)"

export: setup ## CHECKPOINT -> fp32 ONNX graphs in BUILD, or those of TARGET in PRECISION
	$(NEMOPORT) export $(CHOSEN) --build "$(BUILD)" --target $(TARGET) --precision $(PRECISION) --caches $(CACHES) --calibration "$(CALIBRATION)"

fp16: quantize-fp16 ## fp32 -> fp16 with Cast wrappers

quantize-%: export ## fp32 -> a precision: int8-dynamic, int8-static, int8-smoothquant, int8-weight, int4-weight, int4-mixed, ...
	$(NEMOPORT) quantize $(KV)$* --build "$(BUILD)" --calibration "$(CALIBRATION)"

sensitivity: export ## what each layer and module costs in 4 bits
	$(NEMOPORT) sensitivity --build "$(BUILD)" --calibration "$(CALIBRATION)"

validate: oracle ## hold every built variant to its gates; the exit code is the verdict
	$(NEMOPORT) validate $(CHOSEN) --jobs $(JOBS) --build "$(BUILD)" --corpus "$(CORPUS)" --calibration "$(CALIBRATION)"

package: ## lay out what passed for the Hub, in DIST
	$(NEMOPORT) package --build "$(BUILD)" --dist "$(DIST)" $(addprefix --layout ,$(LAYOUT)) $(if $(SHARDS),--shard-bytes $(SHARDS)) $(CARD)

verify: ## check DIST against its manifest
	$(NEMOPORT) verify "$(DIST)"

web: setup ## the page that transcribes in a browser, on this machine at PORT; npm fetches onnxruntime-web for it once
	$(BIN)/python -m nemoport.web build/web --port $(PORT)

publish: ## upload DIST to REPO; prints the plan only where there is no token
	$(NEMOPORT) publish "$(DIST)" --repo "$(REPO)"

peers: setup ## CrispASR, transcribe.cpp and the newest onnxruntime in environments of their own, build/peers, for bench/whole.py
	$(BIN)/python bench/peers/environments.py ggml onnxruntime-1.32

genai: setup ## onnxruntime-genai in an environment of its own, build/genai, for its tests and bench/genai_rows.py
	$(BIN)/python bench/peers/genai.py --work build/genai

# Every step of one command; more of its options in RUN, such as RUN="--precisions fp16,int4-mixed --layouts native,sherpa-onnx".
RUN         ?=
ONE_COMMAND = $(NEMOPORT) run "$(CHECKPOINT)" $(if $(HEAD),--head $(HEAD)) --build "$(BUILD)" --dist "$(DIST)" --corpus "$(CORPUS)" --calibration "$(CALIBRATION)" $(CARD)

run: setup ## everything for CHECKPOINT, in one command: oracle, export, quantize, validate, package, verify, report
	$(ONE_COMMAND) $(RUN)

demo: setup ## the same on the committed checkpoint, of two variants: every gate, in minutes
	$(ONE_COMMAND) --quick $(RUN)

gates: setup ## every usual variant of CHECKPOINT, and those for comparison, through every gate; NeMo's own export beside them
	$(MAKE) --no-print-directory KIND=$(KIND) oracle fp16 quantize-int8-dynamic quantize-int8-static quantize-int8-smoothquant quantize-int8-weight \
	    $(if $(filter streaming-%,$(KIND)),quantize-int8-static-cold)
	$(if $(filter streaming-%,$(KIND)),$(MAKE) --no-print-directory KIND=$(KIND) CACHES=kv export quantize-int8-dynamic quantize-int8-weight)
	$(MAKE) --no-print-directory KIND=$(KIND) validate
	rm -rf "$(DIST)"
	$(MAKE) --no-print-directory KIND=$(KIND) package verify

test: setup ## the tests that finish in minutes
	$(BIN)/python -m pytest $(PARALLEL)

test-all: setup ## and the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m ''

fuzz: setup ## a million mutated inputs through every parser (minutes on two free cores); see tests/fuzz/
	cd tests && "$(CURDIR)/$(BIN)/python" -m fuzz

# Mutants of each module, or all of one: MODULE=nemoport/decode.
PER_MODULE  ?= 30
MODULE      ?=
mutants: setup ## small faults planted in copies of the code, which the tests nearest to them must find (hours); see docs/tests.md
	cd tests && "$(CURDIR)/$(BIN)/python" -m mutants $(if $(MODULE),$(addprefix --module ,$(MODULE)),--per-module $(PER_MODULE))

lint: setup ## ruff check and format, types (pyright), layers (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python .ci/tree.py
	$(BIN)/basedpyright
	cd build/tree && PYTHONPATH=. "$(CURDIR)/$(BIN)/lint-imports" "$(CURDIR)/pyproject.toml"

# uv and pip-audit have an environment of their own.
.venv-release/installed: Makefile
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip-audit==2.10.1
	touch $@

LOCK := .venv-release/bin/uv pip compile --quiet --no-config --system-certs --universal --python-version 3.11 --generate-hashes \
    --no-annotate --custom-compile-command "make lock" --output-file
lock: .venv-release/installed ## requirements*.txt anew: the versions of constraints*.txt with hashes, for Python 3.11 to 3.13
	$(LOCK) requirements.txt --extra dev --extra litert --constraint constraints.txt pyproject.toml
	$(LOCK) requirements-use.txt --constraint constraints.txt pyproject.toml
	$(LOCK) requirements-litert.txt --no-deps constraints-litert.txt

licences: setup ## docs/licences.md anew
	$(BIN)/python docs/list_licences.py

audit: .venv-release/installed ## known vulnerabilities of what requirements.txt pins; needs a network
	.venv-release/bin/python .ci/audit.py requirements.txt

bench: setup ## encoder speed and memory, every row interleaved, beside the machine's limit; see bench/README.md
	$(BIN)/python bench/streaming.py --build "$(BUILD)" --nemo "$(CHECKPOINT)"

CLIPS       ?= 20
consumers: setup ## docs/consumers.md anew: packages of others on ours (minutes); npm and pip fetch them into build/consumers
	$(BIN)/python bench/consumers.py --clips $(CLIPS) --write docs/consumers.md

accuracy: setup ## every variant on plain and outlier-hardened checkpoints, 6,000 further utterances (hours); see bench/accuracy.md
	$(BIN)/python bench/accuracy.py --build build/accuracy

reference: setup ## train a reference checkpoint from scratch (hours; needs espeak-ng, flite and a word list)
	$(BIN)/python -m nemoport.reference.corpus --out build/reference/corpus --clips 26000 --flite-share 0.08 --seed 0
	$(BIN)/python -m nemoport.reference.corpus --out build/reference/ordinary --clips 6500 --flite-share 0.15 --seed ordinary --ordinary-share 1.0
	$(BIN)/python -m nemoport.reference.train --corpus build/reference/corpus/corpus.jsonl build/reference/ordinary/corpus.jsonl --out build/reference/streaming-en.nemo --minutes 300

docs: setup ## the site of docs/ in build/site, strictly: a broken link is an error
	$(BIN)/python docs/support_matrix.py
	$(BIN)/python -m mkdocs build --strict --quiet

clean: ## remove builds and packages
	rm -rf build dist
