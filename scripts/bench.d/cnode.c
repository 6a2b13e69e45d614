/*
 * A C node on erl_interface, as its users write one: ei_xreceive_msg, decode, look up, ei_send. A thread for each
 * connection, one table under one lock. Keys and values stay the encoded bytes that they came in.
 *
 * Usage: cnode NAME COOKIE. Registers with the epmd at ERL_EPMD_PORT, says "ready" on stdout, ends with its stdin.
 */
#include <arpa/inet.h>
#include <ei.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct entry {
    struct entry *next;
    uint64_t hash;
    int key_len, value_len;
    char *value;
    char key[];
};

static struct entry **buckets;
static size_t bucket_count, entry_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ei_cnode node;

static void die(const char *what)
{
    fprintf(stderr, "cnode: %s\n", what);
    exit(1);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        die("out of memory");
    return memory;
}

static uint64_t hash_of(const char *bytes, int len)
{
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211u;
    return hash;
}

static void grow(void)
{
    size_t count = bucket_count ? bucket_count * 2 : 1024;
    struct entry **larger = calloc(count, sizeof *larger);
    if (!larger)
        die("out of memory");
    for (size_t i = 0; i < bucket_count; i++) {
        for (struct entry *entry = buckets[i], *next; entry; entry = next) {
            next = entry->next;
            entry->next = larger[entry->hash & (count - 1)];
            larger[entry->hash & (count - 1)] = entry;
        }
    }
    free(buckets);
    buckets = larger;
    bucket_count = count;
}

static struct entry **find(const char *key, int len, uint64_t hash)
{
    struct entry **at = &buckets[hash & (bucket_count - 1)];
    while (*at && !((*at)->hash == hash && (*at)->key_len == len && !memcmp((*at)->key, key, len)))
        at = &(*at)->next;
    return at;
}

static void put(const char *key, int key_len, const char *value, int value_len)
{
    uint64_t hash = hash_of(key, key_len);
    pthread_mutex_lock(&lock);
    if (entry_count >= bucket_count)
        grow();
    struct entry **at = find(key, key_len, hash), *entry = *at;
    if (!entry) {
        entry = allocate(sizeof *entry + key_len);
        entry->next = NULL;
        entry->hash = hash;
        entry->key_len = key_len;
        entry->value_len = -1;
        entry->value = NULL;
        memcpy(entry->key, key, key_len);
        *at = entry;
        entry_count++;
    }
    if (entry->value_len != value_len) {
        free(entry->value);
        entry->value = allocate(value_len);
        entry->value_len = value_len;
    }
    memcpy(entry->value, value, value_len);
    pthread_mutex_unlock(&lock);
}

static void get(const char *key, int key_len, ei_x_buff *reply)
{
    pthread_mutex_lock(&lock);
    struct entry *entry = *find(key, key_len, hash_of(key, key_len));
    if (entry)
        ei_x_append_buf(reply, entry->value, entry->value_len);
    else
        ei_x_encode_atom(reply, "nil");
    pthread_mutex_unlock(&lock);
}

/* Handles one message. Anything but the requests of the loads is skipped. */
static void handle(int fd, const char *bytes, ei_x_buff *reply)
{
    int at = 0, version, arity, request_arity;
    char word[MAXATOMLEN];
    if (ei_decode_version(bytes, &at, &version) || ei_decode_tuple_header(bytes, &at, &arity)
        || ei_decode_atom(bytes, &at, word))
        return;
    int is_call = arity == 3 && !strcmp(word, "$gen_call");
    if (!is_call && !(arity == 2 && !strcmp(word, "$gen_cast")))
        return;
    erlang_pid from;
    int tag = 0, tag_end = 0;
    if (is_call) {
        if (ei_decode_tuple_header(bytes, &at, &arity) || ei_decode_pid(bytes, &at, &from))
            return;
        tag = at;
        if (ei_skip_term(bytes, &at))
            return;
        tag_end = at;
    }
    if (ei_decode_tuple_header(bytes, &at, &request_arity) || ei_decode_atom(bytes, &at, word))
        return;
    int key = at;
    if (request_arity < 2 || ei_skip_term(bytes, &at))
        return;
    int key_end = at;
    if (request_arity == 3) {
        if (ei_skip_term(bytes, &at))
            return;
        put(bytes + key, key_end - key, bytes + key_end, at - key_end);
    }
    if (!is_call)
        return;
    reply->index = 0;
    ei_x_encode_version(reply);
    ei_x_encode_tuple_header(reply, 2);
    ei_x_append_buf(reply, bytes + tag, tag_end - tag);
    if (request_arity == 3)
        ei_x_encode_atom(reply, "ok");
    else
        get(bytes + key, key_end - key, reply);
    ei_send(fd, &from, reply->buff, reply->index);
}

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument;
    ei_x_buff received, reply;
    ei_x_new(&received);
    ei_x_new(&reply);
    for (;;) {
        erlang_msg message;
        received.index = 0;
        int kind = ei_xreceive_msg(fd, &message, &received);
        if (kind == ERL_ERROR)
            break;
        if (kind == ERL_MSG && (message.msgtype == ERL_SEND || message.msgtype == ERL_REG_SEND))
            handle(fd, received.buff, &reply);
    }
    ei_x_free(&received);
    ei_x_free(&reply);
    close(fd);
    return NULL;
}

static void *accept_all(void *argument)
{
    int listener = (int)(intptr_t)argument;
    for (;;) {
        ErlConnect peer;
        int fd = ei_accept(&node, listener, &peer);
        pthread_t thread;
        if (fd >= 0 && !pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd))
            pthread_detach(thread);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: cnode NAME COOKIE");
    char host[] = "127.0.0.1", full_name[300];
    snprintf(full_name, sizeof full_name, "%s@%s", argv[1], host);
    struct in_addr address = { htonl(INADDR_LOOPBACK) };
    ei_init();
    grow();
    if (ei_connect_xinit(&node, host, argv[1], full_name, &address, argv[2], 1) < 0)
        die("ei_connect_xinit failed");
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr = address };
    socklen_t len = sizeof at;
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, len) || listen(listener, 16)
        || getsockname(listener, (struct sockaddr *)&at, &len))
        die("cannot listen");
    if (ei_publish(&node, ntohs(at.sin_port)) < 0)
        die("cannot register with epmd");
    pthread_t thread;
    if (pthread_create(&thread, NULL, accept_all, (void *)(intptr_t)listener))
        die("no thread");
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
