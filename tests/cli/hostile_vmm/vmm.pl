#!/usr/bin/perl
# A program that is started in place of QEMU. It enters its jail as QEMU does: it opens its disk and its socket as root, then
# is chrooted and becomes the guest's user. From there on it is what a VMM is that its guest has taken over: it does the trick
# that the file TRICKS/GUEST beside it holds, says that it is ready, and answers on its socket.
use strict;
use warnings;
use POSIX ();
use Socket;

if (grep { $_ eq '--version' } @ARGV) {
    print "QEMU emulator version 7.2.0\n";
    exit 0;
}
my %option = map { $ARGV[$_] => $ARGV[$_ + 1] } 0 .. $#ARGV - 1;
my ($guest) = $option{'-name'} =~ /^guest=(.*)/;
my ($uid) = $option{'-runas'} =~ /^(\d+):/;
my ($path) = $option{'-qmp'} =~ /^unix:([^,]*)/;
my ($dir) = $0 =~ m{^(.*)/};
my $trick = '';
if (open(my $file, '<', "$dir/tricks/$guest")) {
    local $/;
    $trick = <$file>;
}

open(my $disk, '+<', 'data/disk.ext4') or die "data/disk.ext4: $!";
socket(our $listener, PF_UNIX, SOCK_STREAM, 0) or die;
bind($listener, sockaddr_un($path)) or die "$path: $!";
listen($listener, 8) or die;
# What Firecracker's jailer does before its guest is ready: the whole jail is its user's.
chown($uid, $uid, '.', 'data', $path) if $trick =~ /^# given/;
chroot('.') or die;
chdir('/');

sub become_its_user {
    $) = "$uid $uid";
    $( = $uid;
    POSIX::setuid($uid) or die;
    die 'still root' if POSIX::setuid(0);
}

sub do_the_trick {
    eval "no strict; $trick\n; 1" or print "the trick failed: $@";
}

$SIG{PIPE} = 'IGNORE';
$| = 1;
our $ready = "sisforge: ready\n";
our $greeting = qq({"QMP": {"version": {}, "capabilities": []}}\r\n);
# What is answered to a command instead of the usual.
our %answer;
# What is done with a connection instead of answering on it.
our $serve = \&serve;

# A socket in place of the one that was there.
sub listen_again {
    my ($queue) = @_;
    unlink($path);
    socket($listener, PF_UNIX, SOCK_STREAM, 0);
    bind($listener, sockaddr_un($path)) or die "$path: $!";
    listen($listener, $queue);
}

# Sends the same for ever.
sub flood {
    my ($connection, $text) = @_;
    1 while defined(syswrite($connection, $text));
}

# One message, and the descriptor beside it where there is one (recvmsg(2)).
sub receive {
    my ($connection) = @_;
    my ($bytes, $control) = ("\0" x 4096, "\0" x 64);
    substr($_, 0, 1) = "\0" for $bytes, $control;
    my $vector = pack('PQ', $bytes, 4096);
    my $message = pack('QQPQPQQ', 0, 0, $vector, 1, $control, 64, 0);
    my $count = syscall(47, fileno($connection), $message, 0);
    return if $count <= 0;
    my ($length) = unpack('Q', $control);
    my $passed = $length >= 20 ? unpack('i', substr($control, 16, 4)) : undef;
    return (substr($bytes, 0, $count), $passed);
}

sub serve {
    my ($connection) = @_;
    syswrite($connection, $greeting);
    my $state;
    while (my ($lines, $passed) = receive($connection)) {
        open($state, '>&=', $passed) if defined $passed;
        while ($lines =~ /"execute":"([^"]*)".*?"id":(\d+)/g) {
            my ($command, $id) = ($1, $2);
            print "qmp: $command\n" unless $command eq 'qmp_capabilities';
            syswrite($state, 'the state of a machine') if $command eq 'migrate' and $state;
            my $value = $command eq 'query-migrate' ? '{"status": "completed"}' : '{}';
            $value = '{"status": "running"}' if $command eq 'query-status';
            syswrite($connection, $answer{$command} // qq({"return": $value, "id": $id}\r\n));
            exit 0 if $command eq 'system_powerdown' and not $answer{$command};
        }
    }
}

# What it does to a jail that is wholly its user's, it does before the host sees that user, and takes the jail back.
if ($trick =~ /^# given/) {
    my $child = fork // die;
    become_its_user(), do_the_trick(), POSIX::_exit(0) unless $child;
    waitpid $child, 0;
    become_its_user();
} else {
    become_its_user();
    do_the_trick();
}
print $ready;
while (1) {
    accept(my $connection, $listener) or next;
    $serve->($connection);
}
