# Starts a container in a guest, as its user. On stdin: how many secrets there are, a line for each with its name and its base64 (nothing
# behind the name: it goes), and then a file for `podman kube play`.
#
#   start NAME LOOP CHECK SETTINGS DIRECTORIES [DIRECTORY...] WORD...
#
# LOOP is health.sh, CHECK the quoted words of the check, SETTINGS its numbers (empty: there is no check), DIRECTORIES how many
# directories of the home are made, WORD... what podman(1) is told.
set -eu
state=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/sisforge
name=$1 loop=$2 check=$3 settings=$4 directories=$5
shift 5
while [ "$directories" -gt 0 ]; do
	mkdir -p -- "$1"
	shift
	directories=$((directories - 1))
done
read -r secrets
while [ "$secrets" -gt 0 ]; do
	read -r secret value || :
	podman secret rm "$secret" >/dev/null 2>&1 || :
	[ -z "$value" ] || printf %s "$value" | base64 -d | podman secret create "$secret" - >/dev/null
	secrets=$((secrets - 1))
done
value=
if [ "$1 $2" = "kube play" ]; then
	# The network that `podman run` gives; a bridge of its own needs what guests have no use for.
	shift 2
	network=pasta
	! command -v slirp4netns >/dev/null || network=slirp4netns
	set -- kube play "--network=$network" "$@"
fi
mkdir -p "$state"
rm -f "$state/$name.health"
said=$(podman "$@")
printf '%s\n' "$said"
[ -n "$settings" ] || exit 0
id=$(printf '%s\n' "$said" | tail -n 1)
echo "$id starting" >"$state/$name.health"
# shellcheck disable=SC2086
setsid sh -c "$loop" sis-health "$id" "$state" "$name" "$check" $settings </dev/null >/dev/null 2>&1 &
