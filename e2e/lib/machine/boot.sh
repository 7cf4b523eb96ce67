# SPDX-License-Identifier: Apache-2.0
#
# boot.sh ROOT DIR NAME COMMAND [ARGUMENT...]: becomes COMMAND, as the first process of
# namespaces of processes, mounts and names, with ROOT as its files. What is written into
# these stays in memory, in DIR. The file CONSOLE, if there is one, gets what COMMAND says at
# its console.
set -eu
root=$1 dir=$2 name=$3
shift 3
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
hostname "$name"
cd "$dir/root"
echo "$name" >etc/hostname
mount -t proc proc proc
# What is not of the network is the same for all namespaces: nobody is to change it.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs sys sys
mount -t bpf -o mode=700 bpf sys/fs/bpf # as systemd does where it is in no container
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
	touch "dev/$device"
	mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
touch dev/console
[ -z "${CONSOLE-}" ] || mount --bind "$CONSOLE" dev/console
mkdir -p old
pivot_root . old
umount -l /old && rmdir /old
exec "$@"
