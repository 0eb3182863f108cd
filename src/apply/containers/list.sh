# How containers are that have a health check, each on a line; an empty line; and what each of the lines of podman(1) prints.
#
#   list NAMES [NAME...] LINE...
state=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/sisforge
names=$1
shift
while [ "$names" -gt 0 ]; do
	id= health=unknown
	[ ! -e "$state/$1.health" ] || read -r id health <"$state/$1.health"
	echo "$1 $health"
	shift
	names=$((names - 1))
done
echo
for line; do
	eval "$line" || exit
done
