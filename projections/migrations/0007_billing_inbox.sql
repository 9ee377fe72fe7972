-- Events about customers: the provider's names for the customer, and for the subscription where one is named.
ALTER TABLE inbox ADD COLUMN customer text, ADD COLUMN subscription text;
