/* SPDX-License-Identifier: Apache-2.0 */
/* Maps that outlive the process that loads the program, where PINS names a folder of a BPF filesystem: each is pinned
 * there under its name, and taken over from there if it is there already. */
#pragma once

#ifdef PINS
#define TABLE(_type, _key, _leaf, _name, _entries)                                                                     \
    BPF_TABLE_PINNED(_type, _key, _leaf, _name, _entries, PINS "/" #_name)
#define CPU_TABLE_SECTION(_name) "maps/cpumap:" PINS "/" #_name
#else
#define TABLE(_type, _key, _leaf, _name, _entries) BPF_TABLE(_type, _key, _leaf, _name, _entries)
#define CPU_TABLE_SECTION(_name) "maps/cpumap"
#endif

/* BCC's BPF_CPUMAP cannot be pinned; this is the same with a section of ours. */
#define CPU_TABLE(_name, _entries)                                                                                     \
    struct _name##_table_t {                                                                                           \
        u32 key;                                                                                                       \
        u32 leaf;                                                                                                      \
        u64 (*redirect_map)(int, int);                                                                                 \
        u32 max_entries;                                                                                               \
    };                                                                                                                 \
    __attribute__((section(CPU_TABLE_SECTION(_name)))) struct _name##_table_t _name = { .max_entries = (_entries) }
