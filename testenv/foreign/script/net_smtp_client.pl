# net_smtp_client.pl JOB: send a job, in JSON, with Perl's Net::SMTP and print what it
# reports.
use strict;
use warnings;
use Authen::SASL;
use JSON::PP;
use Net::SMTP;

open(my $file, '<', $ARGV[0]) or die "$ARGV[0]: $!";
my $job = decode_json(do { local $/; <$file> });
binmode(STDOUT, ':utf8');

my $smtp = Net::SMTP->new($job->{Server}, Port => $job->{Port}, Hello => $job->{Name}, Timeout => 60);
if (!$smtp) {
	print "error: $@\n";
	exit;
}

sub told {    # WHAT: what the server has said last
	my $text = join(' | ', $smtp->message);
	$text =~ s/\s+$//;
	print "$_[0]: ", $smtp->code, " $text\n";
}

print 'hello: ', $smtp->code, ' ', ($smtp->message)[0];
if ($job->{TLS}) {
	my $done = $smtp->starttls(SSL_ca_file => $job->{CA}, SSL_verifycn_scheme => 'smtp');
	print $done ? 'starttls: ' : "starttls failed: $@: ", $smtp->code, "\n";
}
for my $name (qw(8BITMIME SMTPUTF8 DSN SIZE AUTH STARTTLS CHUNKING)) {
	print "extension $name ", $smtp->supports($name) // 'no', "\n";
}
if ($job->{Auth}) {
	$smtp->auth(Authen::SASL->new(mechanism => $job->{Auth},
		callback => { user => $job->{User}, pass => $job->{Password}, authname => $job->{User} }));
	told('auth');
}
for my $letter (@{ $job->{Letters} }) {
	send_letter($letter);
	$smtp->reset unless $smtp->ok;
}
$smtp->quit;
told('quit');

sub send_letter {
	my ($letter) = @_;
	my %mail = (Size => length $letter->{Content});
	my %rcpt = (SkipBad => 1);
	$mail{Bits} = 8 if $letter->{EightBit};
	%mail = (%mail, Return => 'HDRS', Envelope => 'QQ+2B314') if $letter->{DSN};
	%rcpt = (%rcpt, Notify => ['FAILURE', 'DELAY'], ORcpt => 'rfc822;o+2Bx+3Dy@example.org') if $letter->{DSN};
	$smtp->mail($letter->{From}, %mail);
	told('mail');
	return unless $smtp->ok;
	my @good = $smtp->recipient(@{ $letter->{To} }, \%rcpt);
	told("recipients @good");
	return unless @good;
	$smtp->data;
	told('data');
	return unless $smtp->status == 3;
	my $content = $letter->{Content};
	utf8::encode($content);
	$content =~ s/\r\n/\n/g;
	$smtp->datasend($content);
	$smtp->dataend;
	told('letter');
}
