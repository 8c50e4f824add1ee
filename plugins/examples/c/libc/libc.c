// What is needed of a C library where there is none: no file, no clock, no thread, and memory that ends with the call.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 65536
#define ALIGNMENT 16

// By the linker: where free memory begins.
extern char __heap_base;

static uintptr_t top;

// In front of each block stands its size, for realloc.
void *malloc(size_t size)
{
    uintptr_t from = top ? top : (uintptr_t)&__heap_base;
    uintptr_t block = (from + sizeof size + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    size_t have = (size_t)__builtin_wasm_memory_size(0) * PAGE;
    if (size > SIZE_MAX - block)
        return NULL;
    if (block + size > have && __builtin_wasm_memory_grow(0, (block + size - have + PAGE - 1) / PAGE) == SIZE_MAX)
        return NULL;
    ((size_t *)block)[-1] = size;
    top = block + size;
    return (void *)block;
}

void *realloc(void *old, size_t size)
{
    size_t had = old ? ((size_t *)old)[-1] : 0;
    void *block = had >= size && old ? old : malloc(size);
    return block && block != old ? memcpy(block, old, had) : block;
}

void free(void *block)
{
    (void)block;
}

void abort(void)
{
    __builtin_trap();
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((char *)to)[i] = (char)byte;
    return to;
}

int memcmp(const void *one, const void *other, size_t size)
{
    const unsigned char *a = one, *b = other;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}
