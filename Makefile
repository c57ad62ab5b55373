# make lab, make check, make test. All that they need lives in .venv, made when it is missing or out of date.
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
LESSONS := .venv/.lab
# in a container one often is root, which Jupyter wants said
ROOT_USER = $(if $(filter 0,$(shell id -u)),--allow-root)

# before torch is imported: threads that spin while they wait make small steps many times slower
export OMP_WAIT_POLICY := PASSIVE
# notebooks draw with the kernel's own backend
unexport MPLBACKEND
# containers set it, and pytest would prepare every test's asserts anew in each process
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help lab check test course execute homework grade demos pool site slides bench repeat mnist bands teachers release lock clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

lab: $(LESSONS)  ## JupyterLab on lesson 00, on this machine only, with a token (LAB_ARGS=--no-browser adds arguments)
	$(PY) -m jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb --LabApp.news_url=None \
		--ContentsManager.pre_save_hook=kdlab.lessons.saving.on_save $(ROOT_USER) $(LAB_ARGS)

check: $(READY)  ## what to run before a commit: ruff, mypy, imports, the quick tests; a minute and a half
	@$(PY) tools/check.py --quick

test: $(READY)  ## all of it: also the slow tests, nbval on every lesson and demo, other libraries; one summary
	@$(PY) tools/check.py

course: $(READY)  ## every lesson from a fresh kernel; copies and HTML in build/ (NB=notebooks/01_x.ipynb for one)
	@$(PY) tools/course.py --jobs 2 $(NB)

execute: $(READY)  ## the committed lessons executed again, in place (NB=notebooks/01_x.ipynb for one)
	@$(PY) tools/offline.py $(PY) tools/execute.py $(NB)

homework: $(READY)  ## student homework from the instructor's; SECRET=… makes your own variant in build/homework/
	@$(PY) tools/homework.py $(HW)

grade: $(READY)  ## grade a folder or a platform's zip, SUBMITTED=… (SECRET=… OUT=dir LIMIT=30 TOTAL=300 STRICT=1 PEOPLE=csv DEADLINE=… AGAIN=1)
	@$(PY) tools/grade.py "$(or $(SUBMITTED),$(error say SUBMITTED=dir))" $(if $(OUT),--out "$(OUT)") \
		$(if $(LIMIT),--limit $(LIMIT)) $(if $(TOTAL),--total $(TOTAL)) $(if $(STRICT),--strict) \
		$(if $(PEOPLE),--people "$(PEOPLE)") $(if $(DEADLINE),--deadline $(DEADLINE)) \
		$(if $(AGAIN),--again)

demos: $(READY)  ## the demos as apps, on this machine only, with a token
	@$(PY) tools/demos.py $(DEMO_ARGS)

pool: $(READY)  ## the class measures together: each laptop a split; on this machine only (POOL_ARGS="--host 0.0.0.0" opens it)
	@$(PY) -m kdlab pool $(POOL_ARGS)

site: $(READY)  ## the course as a searchable static site in build/site
	@$(PY) tools/website.py

slides: $(READY)  ## slides of every lesson in build/slides (NB=notebooks/01_x.ipynb for one)
	@$(PY) tools/slides.py $(NB)

# with other libraries beside ours where `make test` has set them up
BENCH = $(firstword $(wildcard build/peers/bin/python) $(PY))

bench: $(READY)  ## speed and memory as ratios, half an hour, and one table of them
	@$(BENCH) benchmarks/replicas.py >/dev/null
	@$(BENCH) benchmarks/fused.py >/dev/null
	@$(BENCH) benchmarks/step.py >/dev/null
	@$(BENCH) benchmarks/budget.py >/dev/null
	@$(BENCH) benchmarks/lessons.py >/dev/null
	@$(BENCH) benchmarks/demos.py >/dev/null
	@$(BENCH) benchmarks/live.py >/dev/null
	@$(PY) benchmarks/table.py

repeat: $(READY)  ## a lesson's claims on twenty fresh splits, into benchmarks/results/claims.csv (NB=notebooks/02_x.ipynb TIMES=20, TABLES=1 for claims off tables alone)
	@$(PY) tools/offline.py $(PY) tools/repeat.py $(or $(NB),$(error say NB=notebooks/NN_name.ipynb)) $(if $(TIMES),--times $(TIMES)) $(if $(TABLES),--tables)

mnist: $(READY)  ## Hinton's MNIST table, measured again: an hour, goes on where it was stopped
	@$(PY) benchmarks/hinton_mnist.py

bands: $(READY)  ## the bands of lesson 06, goes on where it was stopped (AGAIN=1 measures all anew: forty-five minutes)
	@$(PY) benchmarks/hidden_layers.py $(if $(AGAIN),--again)

teachers: $(READY)  ## the small models of data/teachers trained again: half an hour
	@$(PY) data/make_topics_lm.py
	@$(PY) data/make_docs_lm.py
	@$(PY) data/make_docs_bert.py

release: $(READY)  ## the wheel and the sdist in dist/, checked, and tried in a clean environment (QUICK=1 leaves that out)
	@$(PY) tools/release.py $(if $(QUICK),--no-install)

lock:  ## constraints.txt again, from the newest versions that fit
	@$(PYTHON) tools/lock.py

clean:  ## what was built, and caches; the environment stays (rm -r .venv)
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find kdlab tools tests notebooks benchmarks \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} + 2>/dev/null || true

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) tools/environment.py

$(LESSONS): pyproject.toml constraints.txt
	@$(PYTHON) tools/environment.py course,api,serve
