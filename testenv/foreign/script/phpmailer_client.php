<?php
// phpmailer_client.php JOB: send a job, in JSON, with PHPMailer and print what it reports.
require '/usr/share/php/libphp-phpmailer/autoload.php';

use PHPMailer\PHPMailer\PHPMailer;

// What composes a message takes the job's, as it is.
class Mailer extends PHPMailer
{
	public $content = '';

	public function preSend()
	{
		[$header, $body] = explode("\r\n\r\n", $this->content, 2);
		[$this->MIMEHeader, $this->MIMEBody] = [$header . "\r\n", $body];
		return true;
	}
}

$job = json_decode(file_get_contents($argv[1]));
$mailer = new Mailer();
$mailer->isSMTP();
[$mailer->Host, $mailer->Port, $mailer->Helo] = [$job->Server, $job->Port, $job->Name];
$mailer->SMTPKeepAlive = true;
$mailer->SMTPAutoTLS = $job->TLS;
$mailer->SMTPSecure = $job->TLS ? PHPMailer::ENCRYPTION_STARTTLS : '';
$mailer->SMTPOptions = ['ssl' => ['cafile' => $job->CA]];
if ($job->Auth) {
	$mailer->SMTPAuth = true;
	[$mailer->AuthType, $mailer->Username, $mailer->Password] = [$job->Auth, $job->User, $job->Password];
}
$mailer->SMTPDebug = 2; // the dialogue
$mailer->Debugoutput = function ($text, $level) {
	if (!preg_match('/^(SERVER -> CLIENT|SMTP ERROR|CLIENT -> SERVER: (EHLO|MAIL|RCPT|AUTH|STARTTLS))/', $text)) {
		return;
	}
	[$who, $said] = explode(': ', $text, 2);
	foreach (explode("\n", trim($said)) as $line) {
		echo $who, ': ', trim($line, "\r\n\t"), "\n";
	}
};
foreach ($job->Letters as $letter) {
	$mailer->clearAllRecipients();
	$mailer->Sender = $mailer->From = $letter->From;
	$mailer->dsn = $letter->DSN ? 'FAILURE,DELAY' : '';
	foreach ($letter->To as $to) {
		$mailer->addAddress($to);
	}
	$mailer->content = $letter->Content;
	echo 'letter: ', var_export($mailer->send(), true), ' ', preg_replace('/\s*\n/', ' | ', $mailer->ErrorInfo), "\n";
}
$mailer->smtpClose();
