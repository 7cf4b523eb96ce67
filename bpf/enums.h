/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * enums.h - gets the enums of blixt.h into the object's BTF, and so into Go:
 * clang describes an enum only where a variable or a map has its type. No
 * loader loads this section. gen.go has clang include this file first.
 */
#include "blixt.h"

union {
	enum limit limit;
	enum address_flag address_flag;
	enum published_bits published_bits;
	enum backend_id backend_id;
	enum backend_flag backend_flag;
	enum flow_flag flow_flag;
	enum config_flag config_flag;
	enum counter counter;
} blixt_enums __attribute__((section("enums")));
