#!/usr/bin/perl
# A program that is started in place of Firecracker's jailer. It makes what that makes, enters the jail and becomes the guest's
# user. From there on it is a Firecracker that its guest has taken over: it does the trick that the file TRICKS/GUEST beside it
# holds, says that it is ready, and answers on its API socket.
use strict;
use warnings;
use POSIX ();
use Socket;

if (grep { $_ eq '--version' } @ARGV) {
    print "Jailer v1.16.1\n";
    exit 0;
}
my %option = map { $ARGV[$_] => $ARGV[$_ + 1] } 0 .. $#ARGV - 1;
my ($guest) = $option{'--id'} =~ /^(.*)--\d+$/;
my $uid = $option{'--uid'};
our $path = $option{'--api-sock'};
my ($dir) = $0 =~ m{^(.*)/};
my $trick = '';
if (open(my $file, '<', "$dir/tricks/$guest")) {
    local $/;
    $trick = <$file>;
}

chdir("$option{'--chroot-base-dir'}/firecracker/$option{'--id'}/root") or die;
mkdir('dev');
open(my $pid, '>', 'firecracker.pid') or die;
print $pid $$;
close $pid;
open(our $disk, '+<', 'data/disk.ext4') or die "data/disk.ext4: $!";
chown($uid, $uid, '.', 'dev', 'run');
chmod(0700, '.');
chroot('.') or die;
chdir('/');
$) = "$uid $uid";
$( = $uid;
POSIX::setuid($uid) or die;
die 'still root' if POSIX::setuid(0);

$SIG{PIPE} = 'IGNORE';
$| = 1;
our $ready = "sisforge: ready\n";
our $listener;
# What is answered to a request, such as `PATCH /vm`, instead of the usual.
our %answer;
# What is done with a connection instead of answering on it.
our $serve = \&serve;
# What is done when a snapshot is asked for.
our $freeze = sub {
    open(my $state, '>', '/frozen.state') or die;
    print $state 'the state of a machine';
    truncate('/frozen.memory', 64 << 20) or die;
};

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

# A whole request: its method and its path.
sub receive {
    my ($connection) = @_;
    my $request = '';
    while (1) {
        if ($request =~ /^(.*?)\r\n\r\n(.*)/s) {
            my ($head, $body) = ($1, $2);
            my ($length) = $head =~ /Content-Length: (\d+)/i;
            return $head =~ m{^(\w+ \S+)} if length($body) >= ($length // 0);
        }
        sysread($connection, $request, 4096, length $request) or return;
    }
}

sub reply {
    my ($status, $body) = @_;
    return "HTTP/1.1 $status\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
}

sub serve {
    my ($connection) = @_;
    while (my ($request) = receive($connection)) {
        print "api: $request\n" unless $request =~ /^GET/;
        $freeze->() if $request eq 'PUT /snapshot/create';
        my $state = '{"id": "x", "state": "Running", "vmm_version": "1.16.1"}';
        my $usual = $request eq 'GET /' ? reply('200 OK', $state) : "HTTP/1.1 204 No Content\r\n\r\n";
        syswrite($connection, $answer{$request} // $usual);
        exit 0 if $request eq 'PUT /actions' and not $answer{$request};
        return;
    }
}

listen_again(8);
eval "no strict; $trick\n; 1" or print "the trick failed: $@";
print $ready;
while (1) {
    accept(my $connection, $listener) or next;
    $serve->($connection);
}
