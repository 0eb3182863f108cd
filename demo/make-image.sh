#!/bin/sh
# Makes a container image without a container engine: busybox and a web page, as an OCI archive.
#
#   make-image.sh BUSYBOX OUT.tar
#
# BUSYBOX is a static busybox. The image is localhost/hello:latest, and the same input gives the same bytes.
# Formats: OCI image layout and image specification 1.0.
set -eu

busybox=$1
out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack DIR TAR: sorted, owned by root, without times
pack() {
	tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$2" -C "$1" .
}

# blob FILE: moves FILE to its digest and prints digest and size
blob() {
	digest=$(sha256sum "$1" | cut -d' ' -f1)
	size=$(stat -c %s "$1")
	mv "$1" "$work/image/blobs/sha256/$digest"
	echo "$digest $size"
}

mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/root/proc" "$work/root/sys" "$work/root/dev" \
	"$work/image/blobs/sha256"
chmod 755 "$work/root" "$work/root/bin" "$work/root/etc" "$work/root/proc" "$work/root/sys" "$work/root/dev"
chmod 1777 "$work/root/tmp"
install -m 755 "$busybox" "$work/root/bin/busybox"
for applet in sh awk cat dd echo env false grep head hostname id ip kill ls mkdir mount nc nproc nslookup ping printf ps \
	pwd rm sed sleep stat sync tail test touch true uname wc wget yes; do
	ln -s busybox "$work/root/bin/$applet"
done
printf 'root:x:0:0:root:/:/bin/sh\n' >"$work/root/etc/passwd"
printf 'root:x:0:\n' >"$work/root/etc/group"
chmod 644 "$work/root/etc/passwd" "$work/root/etc/group"
# Served by `httpd -h /srv`: the page is made anew for each visit, so that it tells what it runs on.
mkdir -p "$work/root/srv/cgi-bin"
install -m 644 "$(dirname "$0")/session.html" "$work/root/srv/session.html"
cat >"$work/root/srv/cgi-bin/index.cgi" <<'END'
#!/bin/sh
printf 'Content-Type: text/html; charset=utf-8\r\n\r\n'
read -r up idle </proc/uptime
sed "s|KERNEL|$(uname -r)|; s|BOOT|$(cat /proc/sys/kernel/random/boot_id)|; s|UPTIME|${up%%.*}|; s|UIDS|$(awk '{ print $2; exit }' /proc/self/uid_map)|" \
	/srv/session.html
END
chmod 755 "$work/root/srv" "$work/root/srv/cgi-bin" "$work/root/srv/cgi-bin/index.cgi"

pack "$work/root" "$work/layer.tar"
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
gzip -n -9 "$work/layer.tar"
set -- $(blob "$work/layer.tar.gz")
layer=$1 layer_size=$2

printf '%s' '{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:'"$diff_id"'"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"busybox"}]}' >"$work/config"
set -- $(blob "$work/config")
config=$1 config_size=$2

printf '%s' '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:'"$config"'","size":'"$config_size"'},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:'"$layer"'","size":'"$layer_size"'}]}' >"$work/manifest"
set -- $(blob "$work/manifest")
manifest=$1 manifest_size=$2

printf '%s' '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
printf '%s' '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:'"$manifest"'","size":'"$manifest_size"',"platform":{"architecture":"amd64","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"localhost/hello:latest"}}]}' >"$work/image/index.json"

mkdir -p "$(dirname "$out")"
(cd "$work/image" && find . -type d -exec chmod 755 {} + && find . -type f -exec chmod 644 {} +)
pack "$work/image" "$out"
