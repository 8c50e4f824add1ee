// Clients reach each other's relayed addresses at this relay, and nobody else. Settings: {"minutes": 60}; the relay
// asks again by then.

#include "admission_policy.h"
#include <stdlib.h>
#include <string.h>

#define MINUTES_MAX 1440

// Nothing here is freed: a fresh instance answers each question and ends with it.
static admission_policy_string_t text(const char *s)
{
    admission_policy_string_t ret;
    admission_policy_string_set(&ret, s);
    return ret;
}

// False where the settings do not say it as they have to.
static bool read_minutes(uint32_t *ret)
{
    admission_policy_string_t key = text("minutes");
    sluice_policy_settings_attribute_value_t value;
    if (!sluice_policy_settings_get(&key, &value) || value.tag != SLUICE_POLICY_TYPES_ATTRIBUTE_VALUE_INTEGER)
        return false;
    *ret = (uint32_t)value.val.integer;
    return value.val.integer >= 1 && value.val.integer <= MINUTES_MAX;
}

static sluice_policy_types_grant_t grant(void)
{
    uint32_t minutes;
    // A trap is a no.
    if (!read_minutes(&minutes))
        abort();
    return (sluice_policy_types_grant_t){ .valid_for = minutes * 60 };
}

void exports_sluice_policy_admission_allocate(exports_sluice_policy_admission_call_context_t *ctx,
                                              exports_sluice_policy_admission_allocation_request_t *request,
                                              exports_sluice_policy_admission_allocation_verdict_t *ret)
{
    (void)ctx, (void)request;
    ret->tag = EXPORTS_SLUICE_POLICY_ADMISSION_ALLOCATION_VERDICT_ALLOW;
    ret->val.allow = (exports_sluice_policy_admission_allocation_grant_t){ .grant = grant() };
}

static sluice_policy_types_verdict_t verdict(const sluice_policy_types_endpoint_t *peer)
{
    if (peer->address_class.tag == SLUICE_POLICY_TYPES_ADDRESS_CLASS_OWN_RELAYED)
        return (sluice_policy_types_verdict_t){ .tag = SLUICE_POLICY_TYPES_VERDICT_ALLOW, .val.allow = grant() };
    admission_policy_string_t counter = text("outsiders");
    sluice_policy_metrics_add(&counter, &(admission_policy_list_string_t){ 0 }, 1);
    sluice_policy_types_denial_t denial = {
        .code = SLUICE_POLICY_TYPES_DENY_CODE_PEER_NOT_ALLOWED,
        .message = text("peers are allocations of this relay"),
    };
    return (sluice_policy_types_verdict_t){ .tag = SLUICE_POLICY_TYPES_VERDICT_DENY, .val.deny = denial };
}

// A verdict for each peer, in order.
void exports_sluice_policy_admission_permit_peers(exports_sluice_policy_admission_call_context_t *ctx,
                                                  exports_sluice_policy_admission_allocation_t *allocation,
                                                  exports_sluice_policy_admission_list_endpoint_t *peers,
                                                  exports_sluice_policy_admission_list_verdict_t *ret)
{
    (void)ctx, (void)allocation;
    ret->len = peers->len;
    ret->ptr = malloc(peers->len * sizeof *ret->ptr);
    if (!ret->ptr)
        abort();
    for (size_t i = 0; i < peers->len; i++)
        ret->ptr[i] = verdict(&peers->ptr[i]);
}

// A constant: which facts are wanted, which counters there are. The class of an address is no fact to be asked for.
void exports_sluice_policy_setup_describe(exports_sluice_policy_setup_manifest_t *ret)
{
    static exports_sluice_policy_setup_counter_decl_t counter;
    counter.name = text("outsiders");
    counter.help = text("Peers that are no allocation of this relay");
    *ret = (exports_sluice_policy_setup_manifest_t){
        .name = text("closed-circle"), .version = text("0.1.0"), .counters = { .ptr = &counter, .len = 1 }
    };
}

static void add(exports_sluice_policy_setup_list_problem_t *problems, const char *at, size_t length,
                const char *message)
{
    problems->ptr = realloc(problems->ptr, (problems->len + 1) * sizeof *problems->ptr);
    if (!problems->ptr)
        abort();
    exports_sluice_policy_setup_problem_t *problem = &problems->ptr[problems->len++];
    problem->severity = EXPORTS_SLUICE_POLICY_SETUP_SEVERITY_ERROR;
    problem->message = text(message);
    admission_policy_string_dup_n(&problem->at, at, length);
}

// The end of a string of JSON that begins here, with both of its quotes.
static const char *string_end(const char *at)
{
    for (at++; *at != '"'; at++)
        at += *at == '\\';
    return at + 1;
}

// Every mistake, with a pointer to where it stands. The host sends a JSON object that is well formed.
void exports_sluice_policy_setup_validate_settings(admission_policy_string_t *document,
                                                   exports_sluice_policy_setup_list_problem_t *ret)
{
    const char *at = (const char *)document->ptr, *end = at + document->len;
    uint32_t minutes;
    *ret = (exports_sluice_policy_setup_list_problem_t){ 0 };
    if (!read_minutes(&minutes))
        add(ret, "/minutes", strlen("/minutes"), "this has to be a whole number of minutes from 1 to 1440");
    for (int depth = 0; at < end;) {
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (*at != '"') {
            at++;
            continue;
        }
        const char *string = at, *after = at = string_end(string);
        while (after < end && (*after == ' ' || *after == '\n' || *after == '\r' || *after == '\t'))
            after++;
        // What a colon follows is a key; its quote makes room for the pointer's stroke.
        size_t length = (size_t)(at - string) - 1;
        if (depth != 1 || after == end || *after != ':' || (length == 8 && !memcmp(string, "\"minutes", 8)))
            continue;
        char pointer[length];
        memcpy(pointer, string, length);
        pointer[0] = '/';
        add(ret, pointer, length, "there is no such key; there is: minutes");
    }
}
