# debian.sh, to be sourced: programs out of Debian's packages, without installing them.

# unpack FOLDER LOG PACKAGE...: unpacks packages into FOLDER, or fails and says why on standard output.
#
# A fresh machine has no lists of packages, and only root can fetch them.
unpack() {
    local folder log packages
    folder=$(realpath "$1") log=$(realpath "$2")
    shift 2
    for tool in apt-get dpkg-deb; do
        type -P $tool >/dev/null || { echo "there is no $tool to get Debian's $* with" && return 1; }
    done
    packages=$(mktemp --directory)
    (
        cd "$packages"
        if ! apt-get download "$@" >"$log" 2>&1; then
            [ "$(id -u)" = 0 ] || { echo "apt-get cannot download $*, and to update its lists takes root ($log)" && exit 1; }
            apt-get update >>"$log" 2>&1 || true # one source of several may be out of reach
            apt-get download "$@" >>"$log" 2>&1 || { echo "apt-get cannot download $* ($log)" && exit 1; }
        fi
        for package in *.deb; do
            dpkg-deb --extract "$package" "$folder" >>"$log" 2>&1 || { echo "$package cannot be unpacked ($log)" && exit 1; }
        done
    )
    local status=$?
    rm -r "$packages"
    return $status
}
