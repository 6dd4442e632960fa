/*
 * relay LISTEN-ADDR PORT ORIGIN-ADDR PORT: carry connections to an origin, from
 * their client's address, and never look inside.
 *
 * The floor of the benchmark: what the same work costs at least, done in one
 * process by system calls, when nobody reads the mail. It has what a proxy cannot
 * do without, which is a second connection with a forged source, back-pressure and
 * half-closed connections, and nothing more: one thread, IPv4, no timeouts, no
 * configuration, no log. A peer that vanishes without a word is never missed.
 *
 * All events are edge-triggered, so what is ready must be used up, or be
 * remembered. Octets of one way are read only while none of them wait.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	BACKLOG = 4096,
	BATCH = 256,	/* events that are asked for at once */
	ROOM = 16384,	/* of a buffer, as HAProxy and nginx have it */
};

/*
 * A direction has a buffer only while octets wait in it, so that idle connections
 * need none. The one that was given back last is taken first: it is in the cache.
 */
struct buffer {
	struct buffer *next; /* spare */
	char octets[ROOM];
};

/* One connection of a pair, and what comes in by it for the other one. */
struct leg {
	struct pair *pair;
	struct buffer *waiting; /* not yet passed on; NULL: nothing */
	size_t start, end;	/* of what waits */
	int fd;
	bool ending;		/* its end has arrived: read until it is there */
	bool ended;		/* the end is passed on */
};

struct pair {
	struct leg client, origin;
	bool joined; /* the origin's connection is there, or has failed */
	bool over;
	struct pair *next; /* over */
};

enum progress { GOES_ON, WAITS, OVER };

static struct buffer *spare;
static struct pair *over; /* freed when no event can name them any more */
static struct sockaddr_in origin_address;
static int events_fd;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *must(void *memory)
{
	if (!memory)
		die("allocate memory");
	return memory;
}

static struct leg *other(struct leg *leg)
{
	return leg == &leg->pair->client ? &leg->pair->origin : &leg->pair->client;
}

static struct buffer *take_buffer(void)
{
	struct buffer *b = spare;

	if (!b)
		return must(malloc(sizeof(*b)));
	spare = b->next;
	return b;
}

static void give_back(struct leg *leg)
{
	if (!leg->waiting)
		return;
	leg->waiting->next = spare;
	spare = leg->waiting;
	leg->waiting = NULL;
}

static void end_pair(struct pair *p)
{
	give_back(&p->client);
	give_back(&p->origin);
	close(p->client.fd);
	close(p->origin.fd);
	p->over = true;
	p->next = over;
	over = p;
}

static enum progress failure(void)
{
	return errno == EAGAIN ? WAITS : OVER;
}

/* Sends what has come in by a leg. */
static enum progress pass(struct leg *from)
{
	ssize_t n = send(other(from)->fd, from->waiting->octets + from->start, from->end - from->start, MSG_NOSIGNAL);

	if (n < 0)
		return failure();
	from->start += n;
	if (from->start < from->end)
		return WAITS;
	give_back(from);
	return GOES_ON;
}

/* Passes on that nothing more will come in by a leg, unless both are at their end. */
static enum progress pass_end(struct leg *from)
{
	from->ended = true;
	if (other(from)->ended || shutdown(other(from)->fd, SHUT_WR) < 0)
		return OVER;
	return WAITS;
}

/*
 * Reads what has come in by a leg and sends it. Less than there is room for is all
 * that there was, and more is another event: but for the end, which may have had
 * its event already.
 */
static enum progress move(struct leg *from)
{
	enum progress sent;
	ssize_t n;

	from->waiting = take_buffer();
	n = recv(from->fd, from->waiting->octets, ROOM, 0);
	if (n <= 0) {
		give_back(from);
		return n < 0 ? failure() : pass_end(from);
	}
	from->start = 0;
	from->end = n;
	sent = pass(from);
	return sent == GOES_ON && n < ROOM && !from->ending ? WAITS : sent;
}

/* Carries what comes in by a leg until there is no more, or no room for it. */
static enum progress carry(struct leg *from)
{
	enum progress p = from->waiting ? pass(from) : GOES_ON;

	while (p == GOES_ON && !from->ended)
		p = move(from);
	return p;
}

static void watch(int fd, struct leg *leg)
{
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = leg };

	if (epoll_ctl(events_fd, EPOLL_CTL_ADD, fd, &e) < 0)
		die("epoll_ctl");
}

/*
 * The client is listened to once the origin is there: a connection that is not yet
 * made cannot be half closed. An error counts after what has come in before it.
 */
static void handle(struct leg *leg, uint32_t events)
{
	enum progress p = WAITS;

	if (leg->pair->over)
		return;
	if (!leg->pair->joined) {
		leg->pair->joined = true;
		watch(leg->pair->client.fd, &leg->pair->client);
	}
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		leg->ending = true;
	if (events & EPOLLOUT && other(leg)->waiting)
		p = carry(other(leg));
	if (p != OVER && events & ~EPOLLOUT && !leg->waiting)
		p = carry(leg);
	if (p == OVER || events & EPOLLERR)
		end_pair(leg->pair);
}

static void set(int fd, int level, int option)
{
	int on = 1;

	if (setsockopt(fd, level, option, &on, sizeof(on)) < 0)
		die("setsockopt");
}

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	set(fd, IPPROTO_IP, IP_TRANSPARENT);
	set(fd, IPPROTO_TCP, TCP_NODELAY);
	return fd;
}

/* Begins a connection to the origin from a client's address, by any port. */
static int dial(struct sockaddr_in from)
{
	int fd = new_socket();

	from.sin_port = 0;
	set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0)
		die("bind to a client's address");
	if (connect(fd, (struct sockaddr *)&origin_address, sizeof(origin_address)) == 0 || errno == EINPROGRESS)
		return fd;
	perror("connect");
	close(fd);
	return -1;
}

/* Of the listener's socket the new ones have TCP_NODELAY. */
static void accept_all(int listener)
{
	for (;;) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		int client = accept4(listener, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct pair *p;
		int origin;

		if (client < 0 && errno == EAGAIN)
			return;
		if (client < 0 && errno == ECONNABORTED)
			continue;
		if (client < 0)
			die("accept4");
		origin = dial(from);
		if (origin < 0) {
			close(client);
			continue;
		}
		p = must(calloc(1, sizeof(*p)));
		p->client = (struct leg){ .pair = p, .fd = client };
		p->origin = (struct leg){ .pair = p, .fd = origin };
		watch(origin, &p->origin);
	}
}

static void serve(int listener)
{
	struct epoll_event events[BATCH];

	for (;;) {
		int n = epoll_wait(events_fd, events, BATCH, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				handle(events[i].data.ptr, events[i].events);
			else
				accept_all(listener);
		}
		while (over) {
			struct pair *p = over;

			over = p->next;
			free(p);
		}
	}
}

static struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };

	if (inet_pton(AF_INET, ip, &a.sin_addr) != 1 || a.sin_port == 0) {
		fprintf(stderr, "not an address and a port: %s %s\n", ip, port);
		exit(2);
	}
	return a;
}

/* Two descriptors for each connection are more than a process has by default. */
static void raise_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		die("getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		die("setrlimit");
}

int main(int argc, char **argv)
{
	struct sockaddr_in at;
	int listener;

	if (argc != 5) {
		fprintf(stderr, "usage: relay LISTEN-ADDR PORT ORIGIN-ADDR PORT\n");
		return 2;
	}
	at = address(argv[1], argv[2]);
	origin_address = address(argv[3], argv[4]);
	raise_limit();
	events_fd = epoll_create1(EPOLL_CLOEXEC);
	if (events_fd < 0)
		die("epoll_create1");
	listener = new_socket();
	set(listener, SOL_SOCKET, SO_REUSEADDR);
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, BACKLOG) < 0)
		die("listen");
	watch(listener, NULL);
	serve(listener);
}
