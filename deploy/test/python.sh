# Python with what the tests of the deployment files need, in an environment of its own. Sourced, in the project's directory.

environment=target/deploy-test/python-$(sha256sum <deploy/test/files/requirements.txt | cut -c1-12)
if ! [ -e "$environment/complete" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || scripts/require python3-venv
    python3 -m venv --clear "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check --requirement deploy/test/files/requirements.txt
    touch "$environment/complete"
fi
PATH=$PWD/$environment/bin:/usr/sbin:$PATH
export PYTHONDONTWRITEBYTECODE=1
