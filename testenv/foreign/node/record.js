// A plugin of Haraka: an origin that takes mail for example.org, and writes down what
// it got into the file that config/records names.
'use strict';
const crypto = require('crypto');
const fs = require('fs');

const {Writable} = require('stream');

exports.register = function () {
	this.records = this.config.get('records');
	this.inherits('auth/auth_base');
};

// Nobody answers questions about names here.
exports.hook_lookup_rdns = function (next) {
	next(OK, 'Unknown');
};

exports.hook_capabilities = function (next, connection) {
	connection.capabilities.push('AUTH PLAIN LOGIN');
	connection.notes.allowed_auth_methods = ['PLAIN', 'LOGIN'];
	next();
};

exports.check_plain_passwd = function (connection, user, password, done) {
	done(user === 'user' && password === 'password');
};

exports.hook_mail = function (next, connection, [address]) {
	if (address.user === 'refused') return next(DENY, 'Nothing from there');
	next();
};

exports.hook_rcpt = function (next, connection, [address]) {
	if (address.host !== 'example.org') return next(DENY, ['No such mailbox', 'this is its second line']);
	next(OK);
};

exports.hook_data_post = function (next, connection) {
	const subject = connection.transaction.header.get('Subject');
	if (subject.startsWith('refuse')) return next(DENY, ['Not such content', 'here']);
	next();
};

// Who has authenticated may send elsewhere, too: that is another hook.
exports.hook_queue = exports.hook_queue_outbound = function (next, connection) {
	const parts = [];
	const all = new Writable({write(part, encoding, done) { parts.push(part); done(); }});
	const t = connection.transaction;
	all.on('finish', () => {
		const text = Buffer.concat(parts).toString('latin1');
		const [trace] = text.match(/^(?:(?:Received|Authentication-Results):.*\r?\n(?:[ \t].*\r?\n)*)*/);
		const content = Buffer.from(text.slice(trace.length), 'latin1');
		fs.appendFileSync(this.records, JSON.stringify({
			Client: connection.remote.ip, Helo: connection.hello.host, TLS: connection.tls.enabled,
			User: connection.notes.auth_user, From: String(t.mail_from), Mail: t.mail_from.params, Esmtp: connection.esmtp,
			To: t.rcpt_to.map(String), Hops: (trace.match(/^Received:/mg) || []).length, Octets: content.length,
			SHA256: crypto.createHash('sha256').update(content).digest('hex'),
			Content: content.length < 2000 ? content.toString() : '',
		}) + '\n');
		next(OK, 'Kept');
	});
	t.message_stream.pipe(all, {line_endings: '\r\n'});
};
