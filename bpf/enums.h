/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * enums.h - puts the enums of the contract, and the message of announce.h, into the object's BTF, from which
 * Go constants are generated: clang describes only an enum that is the type of
 * a variable or a map. No loader loads this section. gen.go has clang include
 * this file first.
 */
#include "blixt.h"

union {
	enum layout layout;
	enum limit limit;
	enum clock clock;
	enum address_flag address_flag;
	enum published_bits published_bits;
	enum backend_id backend_id;
	enum backend_flag backend_flag;
	enum flow_flag flow_flag;
	enum no_flow_of no_flow_of;
	enum config_flag config_flag;
	enum interest_flag interest_flag;
	enum cached_flag cached_flag;
	enum announcing_flag announcing_flag;
	enum announcement_flag announcement_flag;
	enum probe_form probe_form;
	struct announcement announcement; /* it is in no map */
	enum frontend_flag frontend_flag;
	enum policies_of_frontend policies_of_frontend;
	enum policy_flag policy_flag;
	enum source_verdict source_verdict;
	enum refusal refusal;
	enum record_event record_event;
	enum end_reason end_reason;
	enum record_by record_by;
	struct packet_record packet_record; /* the same */
	enum counter counter;
} blixt_enums __attribute__((section("enums")));
